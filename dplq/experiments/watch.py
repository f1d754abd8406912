"""How far a run is, from the files that it writes."""

from __future__ import annotations

import csv
import re
from pathlib import Path

METRICS_FILE = "metrics.csv"  # a line an epoch: epoch, loss, ...
LOG_FILE = "log.txt"
TAIL = 1 << 13  # bytes that are read of each
EPOCH = re.compile(r"^epoch \[(\d+)/(\d+)\].*? loss (\S+)", re.MULTILINE)  # Dassl's line of a batch


def how_far(folder: Path) -> tuple[str, str]:
    """Return the epoch and the loss of a run, such as ``("3/50", "0.1234")``; "" where unknown."""
    found = EPOCH.findall(_tail(folder / LOG_FILE))
    epoch, epochs, loss = found[-1] if found else ("", "", "")
    done, mean_loss = _last_epoch(folder / METRICS_FILE)
    return (f"{epoch}/{epochs}" if epoch else done), mean_loss or loss


def _last_epoch(path: Path) -> tuple[str, str]:
    """Return epoch and loss of the last whole line of a file of metrics."""
    text = _tail(path)
    *lines, _ = text.split("\n")  # the last one may be written at this moment
    if not lines or lines[-1].startswith("epoch"):
        return "", ""
    epoch, loss, *_ = [*next(csv.reader([lines[-1]]), []), "", ""]
    return epoch, loss[:8]


def _tail(path: Path) -> str:
    """Return the end of a file's text; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
