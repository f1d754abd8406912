"""Settings of the image reader: the keys `INPUT.WINDOW`, `BACKGROUND`, `FRAME`, `BANDS`, ..."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from dplq.errors import UserError, shown

PERCENTILE = "percentile"
MOST = 2**53  # of a count: the largest whole number that JSON holds exactly
Window = tuple[float, float] | str | None


@dataclass(frozen=True)
class ReadSettings:
    """How image files are made 8-bit RGB.

    Args:
        window: (low, high), stored values that become 0 and 255, for data of more than 8 bits;
            ``"percentile"``: each image's own 1st and 99th percentile; None: the format's range.
        background: RGB colour, 0 to 255, below transparent pixels.
        frame: page or frame to use, counted from 1.
        bands: the bands to use as red, green, blue, or the one for grey, counted from 1; (): the
            image has one or three.
        max_pixels: largest width x height that is decoded.
    """

    window: Window = None
    background: tuple[int, int, int] = (0, 0, 0)
    frame: int = 1
    bands: tuple[int, ...] = ()
    max_pixels: int = 178_956_970


DEFAULTS = ReadSettings()


def read_settings(node: Any) -> ReadSettings:
    """Return the reader's settings in a config's `INPUT`.

    Args:
        node: has the keys as attributes, in capitals; absent ones, as in a host tree, have their
            defaults.

    Raises:
        UserError: a value is not possible; the message names the key.
    """
    values = {}
    for field in fields(ReadSettings):
        key = field.name.upper()
        value = getattr(node, key, field.default)
        convert, expected = CHECKS[field.name]
        try:
            values[field.name] = convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"INPUT.{key} is {shown(value)}; it must be {expected}.") from error
    return ReadSettings(**values)


def changed_settings(node: Any) -> dict[str, Any]:
    """Return the settings in a config's `INPUT` that are not the defaults, by key in capitals."""
    return changed_of(read_settings(node))


def changed_of(settings: ReadSettings, own: ReadSettings = DEFAULTS) -> dict[str, Any]:
    """Return the settings that are not those of `own`, by key in capitals."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {k.upper(): value for k, value in values.items() if value != getattr(own, k)}


def _window(value: Any) -> Window:
    if value is None or value in ("", "none"):
        return None
    if isinstance(value, str):
        if value.lower() != PERCENTILE:
            raise ValueError(value)
        return PERCENTILE
    low, high = (_number(v) for v in _listed(value))
    if not low < high:
        raise ValueError(value)
    return low, high


def _number(value: Any) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MOST:
        raise ValueError(value)
    return int(value)


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(value)
    return value


def _colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = (_count(v + 1) - 1 for v in _listed(value))
    if max(red, green, blue) > 255:
        raise ValueError(value)
    return red, green, blue


def _bands(value: Any) -> tuple[int, ...]:
    bands = tuple(_count(v) for v in _listed(value))
    if len(bands) not in (0, 1, 3):
        raise ValueError(value)
    return bands


CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "window": (_window, 'two numbers, low < high, such as "[0, 4095]", or percentile, or None'),
    "background": (_colour, 'a colour of three whole numbers from 0 to 255, such as "[0, 0, 0]"'),
    "frame": (_count, "a whole number from 1"),
    "bands": (_bands, 'three bands (or one) counted from 1, such as "[4, 3, 2]" or "[1]", or "()"'),
    "max_pixels": (_count, "a whole number of pixels from 1"),
}
