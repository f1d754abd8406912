"""On-disk cache of decoded images: `DATALOADER.IMAGE_CACHE`.

An image is decoded once, by `dplq.images.reader`, and written as an uncompressed PPM file, which
is read back bit for bit, under `dplq.io.files.cache_root()`. Its name is the SHA-256 of the
original file's content, the name of its folder states how it was read and processed. So all
splits, seeds and runs share it, a changed original gets a new copy, and any number of processes may
write at once. Nothing is unpickled.

* ``decoded``: the decoded image. Everything downstream is the same bit for bit.
* ``resized``: the shorter edge is resized. For test images that is the first step of their
  transform, so the results are the same bit for bit. For training images the edge is 8/7 of
  `INPUT.SIZE` (256 for 224): random resized crops are then taken from a smaller image, which makes
  small crops softer, and by torch instead of Pillow (`dplq.images.preprocessing.ByteCrop`). This
  mode is faster and needs less disk space.

An image needs 3 bytes per pixel: 480 kB for 400x400 decoded, 196 kB resized to 256x256.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from tqdm import tqdm

from dplq.errors import UserError, suggest
from dplq.io.atomic import atomic_write
from dplq.io.files import bytes_digest, cache_root

from .reader import read_opened, reading_key
from .settings import DEFAULTS, ReadSettings, read_settings

logger = logging.getLogger(__name__)
MODES = ("", "decoded", "resized")
KEY = "DATALOADER.IMAGE_CACHE"


class ImageCache:
    """Decoded copies of image files.

    Args:
        edge: shorter edge in pixels after resizing; None: images are not resized.
        interpolation: Pillow's bilinear, bicubic or nearest.
        enlarge: resize smaller images too.
        settings: of the reader.

    Attributes:
        exact: whether all later results are the same bit for bit as without a cache.
    """

    def __init__(
        self,
        edge: int | None = None,
        interpolation: str = "bicubic",
        enlarge: bool = False,
        settings: ReadSettings = DEFAULTS,
    ) -> None:
        self.edge, self.enlarge, self.settings = edge, enlarge, settings
        self.exact = edge is None or enlarge
        self.interpolation = InterpolationMode(interpolation)
        processing = "decoded"
        if edge is not None:
            processing = f"{'edge' if enlarge else 'atmost'}{edge}-{interpolation}"
        # JPEG decoders differ between versions of Pillow
        version = f"{reading_key(settings)}-pillow{PIL.__version__}"
        self.folder = cache_root() / "images" / f"{processing}-{version}"

    def copies(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the cached copies of images; missing ones are made.

        Args:
            paths: image files.

        Returns:
            Path of the copy by path of the original.

        Raises:
            UserError: an image cannot be read, or its copy cannot be written.
        """
        originals = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            made = pool.map(self.copy, originals)
            bar = tqdm(made, "Image cache", len(originals), leave=False, disable=None)
            copies = dict(zip(originals, bar, strict=True))
        logger.info("%d images are read from the image cache %s", len(originals), self.folder)
        return copies

    def copy(self, path: str) -> str:
        """Return the path of an image's cached copy, which is made if there is none."""
        try:
            content = Path(path).read_bytes()
            digest = bytes_digest(content)
            target = self.folder / digest[:2] / f"{digest}.ppm"
            if _is_complete(target):
                return str(target)
            pixels = self._resize(read_opened(io.BytesIO(content), path, self.settings))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        _write(target, b"P6 %d %d 255\n" % pixels.size, pixels.tobytes())
        return str(target)

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.edge is None or (min(image.size) <= self.edge and not self.enlarge):
            return image
        return TF.resize(image, [self.edge], self.interpolation)


def cache_for(cfg: Any, is_train: bool) -> ImageCache | None:
    """Return the cache that a Dassl config requests, or None.

    Args:
        cfg: `DATALOADER.IMAGE_CACHE` (may be absent) and `INPUT` are used.
        is_train: for training images, which are cropped at random, or for test images.

    Raises:
        UserError: unknown kind of cache.
    """
    mode = getattr(cfg.DATALOADER, "IMAGE_CACHE", "")
    if mode not in MODES:
        raise UserError(f"{KEY} is '{mode}'.{suggest(str(mode), MODES)}")
    if not mode:
        return None
    # only these two transforms begin with a step that resizes any image to the input size
    fits = "random_resized_crop" in cfg.INPUT.TRANSFORMS if is_train else True
    settings = read_settings(cfg.INPUT)
    if mode == "decoded" or cfg.INPUT.NO_TRANSFORM or not fits:
        return ImageCache(settings=settings)
    size = max(cfg.INPUT.SIZE)
    edge = round(size * 8 / 7) if is_train else size
    return ImageCache(edge, cfg.INPUT.INTERPOLATION, not is_train, settings)


def _is_complete(path: Path) -> bool:
    """Return whether a copy exists with all its bytes; a power failure may truncate one."""
    try:
        with open(path, "rb") as file:
            header = file.readline(40)
        _, width, height, _ = header.split()
        return path.stat().st_size == len(header) + 3 * int(width) * int(height)
    except (OSError, ValueError):
        return False


def _write(path: Path, *parts: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            file.writelines(parts)
    except OSError as error:
        raise UserError(
            f"The image cache cannot be written to {path.parent}: {error.strerror or error}. Free "
            f"some space, set DPLQ_CACHE to another folder, or leave {KEY} empty."
        ) from error
