"""Sections of a run's page: a module each, with ``section(run: RunPage) -> Section | None``."""
