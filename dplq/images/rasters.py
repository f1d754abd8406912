"""Values of more than 8 bits, or of other bands than three, made 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from .settings import PERCENTILE, ReadSettings
from .stored import Measured, Range, Raster, Refusal, WindowNeeded, range_text

BLOCK = 1 << 15  # values converted at once: no large temporary arrays, which are slow to allocate


def raster_to_rgb(
    raster: Raster, settings: ReadSettings, steps: list[str], measured: bool
) -> tuple[Image.Image, Measured | None]:
    """Return a raster as 8-bit RGB.

    Args:
        raster: the values.
        settings: of the reader.
        steps: what is done is added here.
        measured: also return what the values are.

    Returns:
        The image; what the values of the bands that are used are (None where not measured, or for
        8 bits).

    Raises:
        Refusal: the bands or the range must be chosen first.
    """
    colour, stored_alpha = choose_bands(raster, settings, steps)
    alpha = None if stored_alpha is None else _opacity(stored_alpha, raster)
    if not raster.deep:
        if settings.window is not None:
            steps.append("INPUT.WINDOW not used for 8 bits")
        return _merge(colour, alpha, raster, settings, steps), None
    data = colour if raster.absent is None else colour[~raster.absent]
    extremes = _extremes(data) if measured or colour.dtype.kind == "f" else None
    limits, span = _limits(raster, data, extremes, settings, steps)
    if alpha is None:
        scaled = _scaled(colour, limits, raster.inverted)
    else:  # alpha is applied before the one rounding
        part = alpha[..., None] if raster.premultiplied else 1
        scaled = _shares(colour, limits, raster.inverted, part)
    if raster.absent is not None:
        steps.append("pixels declared to be without data made black")
        scaled[raster.absent] = 0
    facts = Measured(extremes, percentiles(data), span) if measured and extremes else None
    return _merge(scaled, alpha, raster, settings, steps), facts


def choose_bands(
    raster: Raster, settings: ReadSettings, steps: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the bands to use, (H, W, 1 or 3), and alpha, (H, W), or None.

    Raises:
        Refusal: it is not clear which bands to use.
    """
    values, total = raster.values, raster.values.shape[2]
    alpha = values[..., -1] if raster.alpha else None
    colours = total - raster.alpha
    if settings.bands:
        _require_bands(total, settings.bands)
        if total in settings.bands:
            alpha = None
        if settings.bands != tuple(range(1, total + 1)):
            names = ", ".join(map(str, settings.bands))
            steps.append(f"band{'s' * (len(settings.bands) > 1)} {names} used of {total}")
        return values[..., [band - 1 for band in settings.bands]], alpha
    if colours in (1, 3):
        return values[..., :colours], alpha
    if raster.rgb and total == 4:
        steps.append("band 4 of 4, which is not declared alpha, not used")
        return values[..., :3], None
    example = {2: "[1]", 4: "[3, 2, 1]"}.get(total, "[4, 3, 2]")
    raise Refusal(
        f"has {total} bands; name those to use as red, green and blue, or one for grey: set "
        f'INPUT.BANDS "{example}" (counted from 1)'
    )


def _require_bands(total: int, bands: Sequence[int]) -> None:
    if max(bands) > total:
        raise Refusal(
            f"has {total} band{'s' * (total != 1)}, but INPUT.BANDS is {list(bands)}; choose from "
            f"1 to {total}"
        )


def _extremes(values: np.ndarray) -> Range | None:
    """Return the smallest and the largest finite value, None without any."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def _limits(
    raster: Raster,
    values: np.ndarray,
    extremes: Range | None,
    settings: ReadSettings,
    steps: list[str],
) -> tuple[Range, Range | None]:
    """Return the values that become 0 and 255, and the format's range if it is those."""
    if raster.values.dtype.kind == "f" and not np.isfinite(values).all():
        if settings.window is None:
            raise Refusal(WindowNeeded(raster.kind, extremes, finite=False))
        steps.append("values that are not finite made black")
    window = settings.window or raster.window
    if window == PERCENTILE:
        steps.append("1st to 99th percentile of each image scaled to 8 bits")
        return percentiles(values), None
    if window is not None and not isinstance(window, str):
        source = "window" if settings.window else "window of the file"
        # A file's own window may differ from image to image.
        steps.append(f"{source}{f' {range_text(window)}' * bool(settings.window)} applied")
        if extremes and (extremes[0] < window[0] or extremes[1] > window[1]):
            steps.append(f"values outside the {source} clipped")
        return window, None
    span = raster.span
    if span is None:
        low, high = extremes or (0, 0)
        if low < 0 or high > 1:
            raise Refusal(WindowNeeded(raster.kind, extremes, finite=True))
        span = (0.0, 1.0)
    steps.append(f"{raster.bits}-bit values scaled from {range_text(span)} to 8 bits")
    return span, span


def percentiles(values: np.ndarray) -> Range:
    """Return the 1st and the 99th percentile of the finite values, as `np.percentile` does."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        start = int(np.iinfo(values.dtype).min)
        shifted = values.ravel().astype(np.int64) - start
        until = np.cumsum(np.bincount(shifted))
        ranks = np.array([0.01, 0.99]) * (values.size - 1)
        below, above = (
            np.searchsorted(until, whole(ranks), "right") for whole in (np.floor, np.ceil)
        )
        low, high = below + (above - below) * (ranks - np.floor(ranks)) + start
    else:
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, (1, 99)) if finite.size else (0, 1)
    return float(low), float(high if high > low else low + 1)


def _scaled(values: np.ndarray, limits: Range, inverted: bool) -> np.ndarray:
    """Return the values as bytes: round((v - low) / (high - low) * 255), clipped."""
    convert: Callable[[np.ndarray], np.ndarray] = partial(_bytes, limits=limits, inverted=inverted)
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if values.dtype == np.uint16 and limits == (0, 65535) and not inverted:
            convert = _by_257
        else:
            table = _table(values.dtype.str, limits, inverted)
            values = values.view(f"u{values.dtype.itemsize}")
            convert = partial(np.take, table, mode="clip")
    out = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        out[rows] = convert(values[rows])
    return out


def _blocks(values: np.ndarray) -> Iterator[slice]:
    """Yield the rows of `values` in blocks."""
    step = max(1, BLOCK // max(1, values[0].size))
    yield from (slice(top, top + step) for top in range(0, len(values), step))


def _by_257(values: np.ndarray) -> np.ndarray:
    """Return round(v / 257) of uint16 values, without a wider type: faster than a table."""
    moved = np.minimum(values, np.uint16(65407))
    moved += np.uint16(128)
    moved -= moved >> 8
    moved >>= 8
    return moved.astype(np.uint8)


@lru_cache(maxsize=64)
def _table(dtype: str, limits: Range, inverted: bool) -> np.ndarray:
    """Return the byte of every value of a dtype of 8 or 16 bits, by its unsigned bit pattern."""
    size = np.dtype(dtype).itemsize
    patterns = np.arange(256**size, dtype=f"u{size}")
    return _bytes(patterns.view(dtype), limits, inverted)


def _bytes(values: np.ndarray, limits: Range, inverted: bool) -> np.ndarray:
    return np.floor(_shares(values, limits, inverted) + 0.5).astype(np.uint8)


def _shares(
    values: np.ndarray, limits: Range, inverted: bool, part: np.ndarray | int = 1
) -> np.ndarray:
    """Return the values on a scale of 0 to 255, not rounded.

    Args:
        values: (H, W, bands).
        limits: values that become 0 and 255.
        inverted: the other way round.
        part: (H, W, 1), 0 to 1, by which values are multiplied, as the result is.
    """
    low, high = limits
    finite = np.where(np.isfinite(values), values, low).astype(np.float64)
    scaled = np.clip((finite - low * part) / (high - low) * 255, 0, 255 * part)
    if inverted:
        scaled = np.where(np.isfinite(values), 255 * part - scaled, 0)
    return scaled


def _opacity(alpha: np.ndarray, raster: Raster) -> np.ndarray:
    """Return alpha (H, W) as shares, 0 to 1.

    Raises:
        Refusal: floats are not within that.
    """
    top = 1.0 if raster.span is None else raster.span[1]
    known = alpha if raster.absent is None else np.where(raster.absent, 0, alpha)
    if alpha.dtype.kind == "f" and not ((known >= 0) & (known <= top)).all():
        raise Refusal(
            f"has alpha values other than 0 to {top:g} in its last band; save it without alpha, or "
            "choose its colours by INPUT.BANDS"
        )
    return np.clip(known.astype(np.float64) / top, 0, 1)


def _merge(
    colour: np.ndarray,
    alpha: np.ndarray | None,
    raster: Raster,
    settings: ReadSettings,
    steps: list[str],
) -> Image.Image:
    """Return RGB, composited on the background where there is alpha, 0 to 1."""
    if alpha is None and colour.shape[2] == 1:
        grey = Image.fromarray(colour[..., 0])
        return Image.merge("RGB", (grey, grey, grey))
    if colour.shape[2] == 1:
        colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    if alpha is not None:
        colour = composite(
            colour, alpha, 1, settings.background, steps, premultiplied=raster.premultiplied
        )
    return Image.fromarray(np.ascontiguousarray(colour))


def composite(
    colour: np.ndarray,
    alpha: np.ndarray,
    top: float,
    background: tuple[int, int, int],
    steps: list[str],
    *,
    premultiplied: bool = False,
) -> np.ndarray:
    """Return bytes (H, W, 3) composited on a background colour, rounded to the nearest.

    Args:
        colour: (H, W, 3), 0 to 255.
        alpha: (H, W), 0 to `top`.
        top: value that is opaque.
        background: RGB, 0 to 255.
        steps: what is done is added here.
        premultiplied: whether `colour` is multiplied by alpha already.
    """
    if (alpha >= top).all():
        steps.append("opaque alpha ignored")
        return np.floor(colour + 0.5).astype(np.uint8)
    steps.append(f"alpha composited on the background {background}")
    under = np.array(background, np.float32)
    out = np.empty(colour.shape, np.uint8)
    for rows in _blocks(colour):
        share = np.clip(alpha[rows].astype(np.float64) / top, 0, 1)[..., None]
        over = colour[rows] if premultiplied else colour[rows] * share
        out[rows] = np.clip(np.floor(over + under * (1 - share) + 0.5), 0, 255)
    return out
