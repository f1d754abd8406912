"""Images kept decoded, so that a later read costs no decoding: `DATALOADER.IMAGE_CACHE`.

An image is written once as an uncompressed PPM file, a format that Pillow reads back bit for bit,
under `dplq.io.files.cache_root()`. Its name is the SHA-256 of the original file's content, its
folder says what was done to it. So every split, seed and run shares it, a changed original is not
mistaken for the old one, and any number of processes may write at once. Nothing is ever unpickled.

* ``decoded``: the image as it was decoded. Everything downstream is the same bit for bit.
* ``resized``: the shorter edge is brought to what is needed. Of the test images that is the first
  step of their transform, so they stay the same bit for bit. Training images keep 8/7 of
  `INPUT.SIZE` (256 for 224): random resized crops are then cut from a smaller picture, which makes
  small crops softer, and by torch instead of Pillow (`dplq.images.preprocessing.ByteCrop`). It is
  the quicker one, and takes less room.

An image takes 3 bytes per pixel: 480 kB for 400x400 decoded, 196 kB resized to 256x256.
"""

from __future__ import annotations

import hashlib
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
from dplq.io.atomic import written_aside
from dplq.io.files import cache_root

logger = logging.getLogger(__name__)
MODES = ("", "decoded", "resized")
KEY = "DATALOADER.IMAGE_CACHE"


class ImageCache:
    """Decoded copies of image files.

    Args:
        edge: length in pixels that the shorter edge is brought to; None leaves images as they are.
        interpolation: how, as Pillow does it: bilinear, bicubic or nearest.
        enlarge: do so with images that are smaller, too.

    Attributes:
        exact: what comes after it is the same bit for bit as without a cache.
    """

    def __init__(
        self, edge: int | None = None, interpolation: str = "bicubic", enlarge: bool = False
    ) -> None:
        self.edge, self.enlarge = edge, enlarge
        self.exact = edge is None or enlarge
        self.interpolation = InterpolationMode(interpolation)
        how = "decoded"
        if edge is not None:
            how = f"{'edge' if enlarge else 'atmost'}{edge}-{interpolation}"
        # another Pillow may come with another JPEG decoder
        self.folder = cache_root() / "images" / f"{how}-pillow{PIL.__version__}"

    def copies(self, paths: Iterable[str]) -> dict[str, str]:
        """Make the copies that are missing.

        Args:
            paths: image files.

        Returns:
            The copy's path of every path.

        Raises:
            UserError: an image cannot be read, or its copy cannot be written.
        """
        todo = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            made = pool.map(self.copy, todo)
            bar = tqdm(made, "Image cache", len(todo), leave=False, disable=None)
            copies = dict(zip(todo, bar, strict=True))
        logger.info("%d images are read from the image cache %s", len(todo), self.folder)
        return copies

    def copy(self, path: str) -> str:
        """Path of the copy of one image file, which is made if there is none."""
        try:
            content = Path(path).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            target = self.folder / digest[:2] / f"{digest}.ppm"
            if _is_whole(target):
                return str(target)
            with Image.open(io.BytesIO(content)) as image:
                pixels = self._fitted(image.convert("RGB"))
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged data
            raise UserError(f"{path} cannot be read as an image: {error}. Replace it.") from error
        _write(target, b"P6 %d %d 255\n" % pixels.size, pixels.tobytes())
        return str(target)

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self.edge is None or (min(image.size) <= self.edge and not self.enlarge):
            return image
        return TF.resize(image, [self.edge], self.interpolation)


def cache_for(cfg: Any, is_train: bool) -> ImageCache | None:
    """The cache that a Dassl config asks for; None where it asks for none.

    Args:
        cfg: reads `DATALOADER.IMAGE_CACHE` (may be absent) and `INPUT`.
        is_train: for training images, which are cropped at random, or for test images.

    Raises:
        UserError: there is no such kind of cache.
    """
    mode = getattr(cfg.DATALOADER, "IMAGE_CACHE", "")
    if mode not in MODES:
        raise UserError(f"{KEY} is '{mode}'.{suggest(str(mode), MODES)}")
    if not mode:
        return None
    # only these two begin with a step that brings any image to the size of the input
    fits = "random_resized_crop" in cfg.INPUT.TRANSFORMS if is_train else True
    if mode == "decoded" or cfg.INPUT.NO_TRANSFORM or not fits:
        return ImageCache()
    size = max(cfg.INPUT.SIZE)
    edge = round(size * 8 / 7) if is_train else size
    return ImageCache(edge, cfg.INPUT.INTERPOLATION, enlarge=not is_train)


def _is_whole(path: Path) -> bool:
    """Is there a copy with all its bytes? After a power failure there may be one without."""
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
        with written_aside(path) as aside, open(aside, "wb") as file:
            file.writelines(parts)
    except OSError as error:
        raise UserError(
            f"The image cache cannot be written to {path.parent}: {error.strerror or error}. Free "
            f"some space, set DPLQ_CACHE to another folder, or leave {KEY} empty."
        ) from error
