"""Progress of ``dplq predict``: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines


class Progress:
    """Counts images.

    Args:
        total: images to do.
        quiet: show nothing.
        has_bar: show a bar rather than lines.
    """

    def __init__(self, total: int, *, quiet: bool = False, has_bar: bool = True) -> None:
        self.total, self.quiet, self.done = total, quiet, 0
        self.began = self.shown = time.perf_counter()
        self.bar = tqdm(total=total, unit=" images", disable=quiet or not has_bar, leave=False)

    @property
    def rate(self) -> float:
        """Return images per second so far."""
        return self.done / max(time.perf_counter() - self.began, 1e-9)

    def add(self, count: int) -> None:
        """Count images that are done."""
        self.done += count
        self.bar.update(count)
        now = time.perf_counter()
        if self.bar.disable and not self.quiet and now - self.shown >= EVERY:
            self.shown = now
            text = f"{self.done:,} of {self.total:,} images, {self.rate:,.0f} images/s"
            print(text, file=sys.stderr, flush=True)

    def report(self) -> None:
        """Print the number of images, and how long they took."""
        if not self.quiet:
            seconds = time.perf_counter() - self.began
            text = f"{self.done:,} images in {seconds:.1f} s ({self.rate:,.0f} images/s)"
            print(text, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()
