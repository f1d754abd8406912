"""Dassl integration: detection, registration, config keys."""
