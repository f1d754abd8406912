"""Maintenance commands: the demo's weights and figure."""
