"""Tests of the fallback for Dassl."""
