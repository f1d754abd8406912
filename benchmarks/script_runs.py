"""What the tables of several calls of scripts/base2new.sh share: calls, and the table's place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dplq.errors import UserError
from dplq.io.validation.schema import read_text

ROOT = Path(__file__).resolve().parent.parent
MARKS = ("<!-- table -->", "<!-- end -->")
K = TypeVar("K")


def base2new(
    dataset: str,
    seeds: Iterable[int],
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    folder: Path = ROOT,
) -> None:
    """Run scripts/base2new.sh; finished runs are reused, as by the script.

    Args:
        dataset: a file of configs/datasets.
        seeds: of the runs.
        settings: config keys and their values.
        environment: the script's variables, such as OUT and TRAINERS.
        folder: where relative paths in the settings begin.

    Raises:
        RuntimeError: a run failed; the message contains the end of its output.
    """
    options = [str(word) for pair in settings.items() for word in pair]
    command = ["bash", str(ROOT / "scripts/base2new.sh"), dataset, *map(str, seeds), "--", *options]
    given = os.environ | {"PYTHON": sys.executable} | environment
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def in_parallel(tasks: Mapping[K, Callable[[], Any]], jobs: int) -> Iterator[tuple[K, Any]]:
    """Yield every task's key, and its result or the RuntimeError that it raised.

    The first one runs alone: it draws the demo's images.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # published tables are from the CPU
    keys = list(tasks)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(keys), desc="runs") as bar:
        for some in (keys[:1], keys[1:]):
            waiting = {key: pool.submit(tasks[key]) for key in some}
            for key, future in waiting.items():
                error = future.exception()
                if error is not None and not isinstance(error, RuntimeError):
                    raise error
                yield key, future.result() if error is None else error
                bar.update()


def check_marks(path: Path) -> None:
    """Check that a file has the two lines between which a table is written.

    Raises:
        UserError: it has not, or cannot be read.
    """
    first, last = MARKS
    if last not in read_text(path, remedy="Give another file.").partition(first)[2]:
        raise UserError(f"{path} has no lines {first} and {last} for the table")


def write_table(path: Path, table: str) -> None:
    """Replace the text between the two lines `MARKS`."""
    first, last = MARKS
    head, rest = path.read_text().split(first, 1)
    path.write_text(f"{head}{first}\n\n{table}\n\n{last}{rest.split(last, 1)[1]}")
