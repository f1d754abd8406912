"""Predictions of a test, and the metrics made from them."""
