"""A progress bar around a data loader, for training loops that we do not own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


class ProgressLoader:
    """Iterates like the loader it wraps, with a bar on stderr.

    Args:
        loader: the data loader.
        print_freq: Dassl prints a log line every so many batches.
    """

    def __init__(self, loader: Any, print_freq: int) -> None:
        self.loader, self.print_freq = loader, print_freq

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not yet set while a copy is being made
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        with tqdm(total=len(self), desc="train", leave=False, mininterval=0.5) as bar:
            for index, batch in enumerate(self.loader, start=1):
                if index % self.print_freq == 0 or len(self) < self.print_freq:
                    bar.clear()  # Dassl prints a line after this batch; keep the two apart
                yield batch
                bar.update()
