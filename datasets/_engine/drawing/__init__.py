"""Drawing a split: by name, by group, and so that later draws move no image."""
