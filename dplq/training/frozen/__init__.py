"""Features of frozen encoders, computed once for all runs that train on the same views."""
