"""The demo's datasets on disk: drawn once, as JPEGs in ordinary class folders."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dplq.demo.models import SIZE
from dplq.demo.render import render

PER_CLASS = 100
FIRST_SEED = 1_000_000  # the models of `make_weights` were trained and measured on smaller ones
QUALITY = 92  # of the JPEGs
SOURCES = ("canvas", "gallery", "looks", "materials", "render", "scenes", "tissue")


def gallery(name: str, classes: tuple[str, ...], look: str = "domain") -> Path:
    """The folder of a demo dataset, ``<class>/<number>.jpg``; drawn now if it is not there yet.

    It lies in ``$DPLQ_CACHE`` or ``~/.cache/dplq``. Its name carries a digest of the code that
    draws, so that pictures of another version are never mixed in.
    """
    chosen = os.environ.get("DPLQ_CACHE", "")
    cache = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "dplq"
    folder = cache / f"{name}-{look}-{_version()}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=cache, prefix=f".{name}-"))
        try:
            _draw_all(aside, classes, look)
            aside.chmod(0o755)
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run may have drawn it meanwhile
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _version() -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update(Path(__file__).with_name(f"{source}.py").read_bytes())
    return digest.hexdigest()[:8]


def _draw_all(folder: Path, classes: tuple[str, ...], look: str) -> None:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(_draw_class, folder, look), classes)
        for _ in tqdm(drawn, total=len(classes), desc="drawing the demo images"):
            pass


def _draw_class(folder: Path, look: str, name: str) -> None:
    (folder / name).mkdir()
    for number in range(PER_CLASS):
        image = render(name, look, FIRST_SEED + number, SIZE).image
        image.save(folder / name / f"{number:03d}.jpg", quality=QUALITY)
