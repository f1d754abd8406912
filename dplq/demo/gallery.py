"""The demo's datasets on disk: rendered once, as JPEGs in class folders."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dplq.demo.models import SIZE
from dplq.demo.render import render
from dplq.errors import UserError
from dplq.io.files import bytes_digest, cache_root

PER_CLASS = 100
# The models of `tools.make_demo_weights` were trained and measured on smaller ones.
FIRST_SEED = 1_000_000
QUALITY = 92  # of the JPEGs
CODE = ("canvas", "gallery", "looks", "materials", "render", "scenes", "tissue")
SOURCES = (*(f"{module}.py" for module in CODE), "palettes.yaml")


def gallery(
    name: str, classes: tuple[str, ...], look: str = "domain", per_class: int = PER_CLASS
) -> Path:
    """Return the folder of a demo dataset, ``<class>/<number>.jpg``; render it if missing.

    It is in ``$DPLQ_CACHE`` or ``~/.cache/dplq``. Its name has a digest of the drawing code, which
    keeps pictures of different versions apart.

    Raises:
        UserError: the cache cannot be written to.
    """
    cache = cache_root()
    folder = cache / f"{name}-{look}-{per_class}-{_version()}"
    try:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary:
                drawn = Path(temporary) / name
                drawn.mkdir()
                _draw_all(drawn, classes, look, per_class)
                drawn.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another run may have rendered it meanwhile
            raise UserError(
                f"The demo images cannot be written to {folder}: {error.strerror or error}. "
                "Set DPLQ_CACHE to a folder that can be written to."
            ) from error
    return folder


def _version() -> str:
    """Return a digest of the drawing code."""
    sources = (Path(__file__).with_name(source).read_bytes() for source in SOURCES)
    return bytes_digest(b"".join(sources))[:8]


def _draw_all(folder: Path, classes: tuple[str, ...], look: str, per_class: int) -> None:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(_draw_class, folder, look, per_class), classes)
        for _ in tqdm(drawn, total=len(classes), desc="drawing the demo images"):
            pass


def _draw_class(folder: Path, look: str, per_class: int, name: str) -> None:
    (folder / name).mkdir()
    for number in range(per_class):
        image = render(name, look, FIRST_SEED + number, SIZE).image
        image.save(folder / name / f"{number:03d}.jpg", quality=QUALITY)
