"""On-disk cache of decoded images: `DATALOADER.IMAGE_CACHE`.

An image is decoded once, by `dplq.images.reader`, and written as an uncompressed PPM file, which
is read back bit for bit and has its checksum in a comment, under `dplq.io.files.cache_root()`. Its
name is the SHA-256 of the original file's content, the name of its folder states how it was read
and processed. So all splits, seeds and runs share it, a changed original gets a new copy, and any
number of processes may write at once. A damaged copy is reported and made again. Nothing is
unpickled.

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
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from tqdm import tqdm

from dplq.errors import UserError, few
from dplq.io.atomic import atomic_write, clear_temporaries
from dplq.io.files import bytes_digest, cache_root
from dplq.io.validation.values import one_of, require

from .reader import read_opened, reading_key
from .settings import DEFAULTS, ReadSettings, read_settings

logger = logging.getLogger(__name__)
KEY = "DATALOADER.IMAGE_CACHE"
MODES = ("", "decoded", "resized")
CHECK = one_of(MODES, "empty, decoded or resized")  # of its value
FORMAT = "crc32"  # of the copies; those of earlier versions, without a checksum, are not used
START = b"P6\n# CRC-32 "  # of a copy; eight hex digits and the rest of the file follow


class Copy(NamedTuple):
    """A cached copy: where it is, and what was to be done for it."""

    path: Path
    is_new: bool = False
    was_damaged: bool = False


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
        version = f"{reading_key(settings)}-pillow{PIL.__version__}-{FORMAT}"
        self.folder = cache_root() / "images" / f"{processing}-{version}"

    def copies(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the cached copies of images; missing and damaged ones are made.

        Args:
            paths: image files.

        Returns:
            Path of the copy by path of the original.

        Raises:
            UserError: an image cannot be read, or its copy cannot be written.
        """
        originals = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            made = pool.map(self._copy, originals)
            bar = tqdm(made, "Image cache", len(originals), leave=False, disable=None)
            found = dict(zip(originals, bar, strict=True))
        for folder in {copy.path.parent for copy in found.values() if copy.is_new}:
            clear_temporaries(folder)
        if damaged := [copy.path for copy in found.values() if copy.was_damaged]:
            logger.warning(
                "%d copies in the image cache were damaged and are made again: %s",
                len(damaged),
                few(damaged, 3),
            )
        logger.info("%d images are read from the image cache %s", len(originals), self.folder)
        return {path: str(copy.path) for path, copy in found.items()}

    def copy(self, path: str) -> str:
        """Return the path of an image's cached copy, which is made if there is no whole one."""
        return self.copies([path])[path]

    def _copy(self, path: str) -> Copy:
        """Return an image's cached copy, which is made if there is no whole one."""
        try:
            content = Path(path).read_bytes()
            digest = bytes_digest(content)
            target = self.folder / digest[:2] / f"{digest}.ppm"
            there = _read(target)
            if there is not None and _is_whole(there, digest):
                return Copy(target)
            pixels = self._resize(read_opened(io.BytesIO(content), path, self.settings))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        rest = b"\n%d %d\n255\n" % pixels.size + pixels.tobytes()
        _write(target, START, _checksum(rest, digest), rest)
        return Copy(target, is_new=True, was_damaged=there is not None)

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
    require(KEY, mode, CHECK)
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


def _read(path: Path) -> bytes | None:
    """Return the content of a copy, None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:  # of the disk: the copy is made again
        return b""


def _checksum(rest: bytes | memoryview, original: str) -> bytes:
    """Return the checksum of a copy, in eight hex digits.

    Args:
        rest: what follows the checksum in the file.
        original: digest of the original file, so that no copy passes for another image's.
    """
    return b"%08x" % zlib.crc32(rest, zlib.crc32(original.encode()))


def _is_whole(content: bytes, original: str) -> bool:
    """Return whether a copy of the image with this digest is as it was written."""
    at = len(START)
    rest = memoryview(content)[at + 8 :]
    return content.startswith(START) and content[at : at + 8] == _checksum(rest, original)


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
