"""Frozen domain encoders: image in, one pooled domain feature out."""
