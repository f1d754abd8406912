"""Heads: classifiers that are fitted to the features of frozen encoders."""
