"""A run's folder: its files, whose it is, its lock."""
