"""Methods that learn the words before the class name."""
