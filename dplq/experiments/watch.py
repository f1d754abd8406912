"""How far a run is, from the files that it writes."""

from __future__ import annotations

import re
from pathlib import Path

from dplq.training.tracking.epochs import read_epochs

LOG_FILE = "log.txt"
TAIL = 1 << 13  # bytes of it that are read
EPOCH = re.compile(r"^epoch \[(\d+)/(\d+)\].*? loss (\S+)", re.MULTILINE)  # Dassl's line of a batch


def how_far(folder: Path) -> tuple[str, str]:
    """Return the epoch and the loss of a run, such as ``("3/50", "0.1234")``; "" where unknown."""
    found = EPOCH.findall(_tail(folder / LOG_FILE))
    epoch, epochs, loss = found[-1] if found else ("", "", "")
    done, mean_loss = _last_epoch(folder)
    return (f"{epoch}/{epochs}" if epoch else done), mean_loss or loss


def _last_epoch(folder: Path) -> tuple[str, str]:
    """Return epoch and loss of the last epoch whose loss is known."""
    losses = {epoch: row["loss"] for epoch, row in read_epochs(folder).items() if "loss" in row}
    return (str(last := max(losses)), f"{losses[last]:.6g}") if losses else ("", "")


def _tail(path: Path) -> str:
    """Return the end of a file's text; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
