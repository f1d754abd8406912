"""Tests of the stand-in for Dassl."""
