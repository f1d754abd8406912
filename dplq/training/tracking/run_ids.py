"""``tracking.json``: under which ids the tracking services know a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dplq.io.atomic import write_bytes_atomically
from dplq.io.runs.files import TRACKING_FILE
from dplq.io.validation.schema import InvalidContent, Name, read_json

logger = logging.getLogger(__name__)


def run_id(folder: Path, service: str) -> str | None:
    """Return a run's id at a service; None where it has none yet."""
    return _ids(folder).get(service)


def keep_run_id(folder: Path, service: str, value: str) -> None:
    """Note a run's id at a service.

    Raises:
        UserError: it cannot be written.
    """
    ids = _ids(folder) | {service: value}
    write_bytes_atomically(folder / TRACKING_FILE, f"{json.dumps(ids, indent=1)}\n".encode())


def _ids(folder: Path) -> dict[str, str]:
    path = folder / TRACKING_FILE
    if not path.exists():
        return {}
    try:
        return read_json(path, dict[str, Name], remedy="New runs are begun at the services.")
    except InvalidContent as error:
        logger.warning("%s", error)
        return {}
