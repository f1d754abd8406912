"""Arguments that change a published encoder: statistics, size, pooling, timm's keywords.

Those of timm are a dict or a text, ``"img_size=518, reg_tokens=4"``: the text is what a command
line, a YAML file and a checkpoint's header hold.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from dplq.domain.pooling import POOLS
from dplq.errors import UserError, few, shown, suggest

# Set by other arguments of the loader, or what no encoder can have.
RESERVED = {
    "num_classes": "an encoder has no classifier",
    "pretrained": "pretrained (DOMAIN.PRETRAINED) says it",
    "pretrained_cfg": "mean, std and image_size say it",
    "pretrained_cfg_overlay": "mean, std and image_size say it",
    "checkpoint_path": "weights (DOMAIN.WEIGHTS) says it",
    "cache_dir": "HF_HOME says it",
    "features_only": "an encoder returns its last features",
    "scriptable": "an encoder runs in eager mode",
    "exportable": "an encoder runs in eager mode",
    "dynamic_img_size": "an encoder has one size, image_size (DOMAIN.IMAGE_SIZE)",
}
# Layers that timm takes as classes, by their names.
LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")
Value = bool | int | float | str | None | list[Any]


def parse_arguments(given: str | Mapping[str, Any], key: str = "args (DOMAIN.ARGS)") -> dict:
    """Return timm's keyword arguments.

    Args:
        given: a dict, or a text such as ``"img_size=518, mlp_layer=SwiGLUPacked"`` or
            ``"{'img_size': 518}"``; empty: none.
        key: their name in messages.

    Raises:
        UserError: it is neither, or an argument is not possible; it is named.
    """
    found = _from_text(given, key) if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise UserError(f"{key} {_not_understood(given)}")
    for name, value in found.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{key} {_not_understood(given)}")
        if name in RESERVED:
            raise UserError(f"{key} cannot set {name}: {RESERVED[name]}")
        _check_value(name, value, key)
    return dict(found)


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Return keyword arguments as the text that `parse_arguments` reads, in order of names."""
    return ", ".join(f"{name}={_written(arguments[name])}" for name in sorted(arguments))


def _written(value: Any) -> str:
    is_word = isinstance(value, str) and value.isidentifier() and value not in ("True", "False")
    return value if is_word and value != "None" else repr(value)


def _not_understood(given: Any) -> str:
    return (
        f"is {shown(given)}; it must be timm's keyword arguments, such as "
        '"img_size=518, reg_tokens=4" or {img_size: 518}'
    )


def _from_text(text: str, key: str) -> Any:
    """Read ``name=value, ...`` or a dict."""
    if not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        return _literal(text, text, key)
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or call.args or not all(k.arg for k in call.keywords):
        raise UserError(f"{key} {_not_understood(text)}")
    if not isinstance(call.func, ast.Name):  # "f(...)(...)", which would drop the first
        raise UserError(f"{key} {_not_understood(text)}")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        assert keyword.arg is not None
        if keyword.arg in found:
            raise UserError(f"{key} names {keyword.arg} twice: {shown(text)}")
        is_word = isinstance(keyword.value, ast.Name)
        found[keyword.arg] = keyword.value.id if is_word else _literal(keyword.value, text, key)  # type: ignore[attr-defined]
    return found


def _literal(node: Any, text: str, key: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(f"{key} {_not_understood(text)}") from error


def _check_value(name: str, value: Any, key: str) -> None:
    """Refuse a value that is no number, flag, text or list of them."""
    if isinstance(value, (list, tuple)):
        for element in value:
            _check_value(name, element, key)
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise UserError(
            f"{key}: {name} is {shown(value)}; it must be a number, a flag, a text or a list"
        )
    elif name == "mlp_layer" and value not in LAYERS:
        raise UserError(f"{key}: mlp_layer {shown(value)} is unknown.{suggest(value, LAYERS)}")


def with_layers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments with timm's classes in place of their names."""
    import timm

    found = dict(arguments)
    if isinstance(found.get("mlp_layer"), str):
        found["mlp_layer"] = getattr(timm.layers, found["mlp_layer"])
    return found


@dataclass(frozen=True)
class Changes:
    """What differs from an encoder as it is published; empty values change nothing.

    Attributes:
        mean: channel means of its training images, on a 0-1 scale.
        std: the standard deviations that go with `mean`.
        image_size: side in pixels of its square input.
        pool: one of `POOLS`.
        args: timm's keyword arguments.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_size: int = 0
    pool: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int,
        pool: str,
        args: str | Mapping[str, Any],
    ) -> Changes:
        """Return the changes of the loader's arguments.

        Raises:
            UserError: one is not possible, or two contradict each other.
        """
        if pool and pool not in POOLS:
            raise UserError(f"unknown domain pool {shown(pool)}.{suggest(pool, POOLS)}")
        whole = isinstance(image_size, Integral) and not isinstance(image_size, bool)
        if not whole or not 0 <= image_size <= 1 << 13:
            raise UserError(
                f"image_size (DOMAIN.IMAGE_SIZE) is {shown(image_size)}; it must be a side in "
                "pixels, or 0 for the encoder's own"
            )
        found = parse_arguments(args)
        mean, std = _numbers(mean, "mean"), _numbers(std, "std", above=0.0)
        if len(mean) != len(std):
            raise UserError(
                f"mean (DOMAIN.MEAN) has {len(mean)} numbers and std (DOMAIN.STD) {len(std)}: give "
                "both, one number per channel"
            )
        side = found.get("img_size")
        if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
            raise UserError(
                f"args (DOMAIN.ARGS): img_size is {shown(side)}; it must be the side of a square "
                "in pixels"
            )
        if side and image_size and side != image_size:
            raise UserError(
                f"image_size (DOMAIN.IMAGE_SIZE) is {image_size} and img_size in args "
                f"(DOMAIN.ARGS) is {side}: give one of them"
            )
        return cls(mean, std, int(image_size), pool, found)

    @property
    def options(self) -> dict[str, Any]:
        """The changes as a `Spec` holds them: only those that were given."""
        found = {
            "mean": list(self.mean),
            "std": list(self.std),
            "image_size": self.image_size,
            "pool": self.pool,
            "args": arguments_text(self.args),
        }
        return {name: value for name, value in found.items() if value}

    def refuse(self, name: str, why: str) -> None:
        """Refuse (UserError) changes of an encoder that has none."""
        if self.options:
            keys = [f"{key} (DOMAIN.{key.upper()})" for key in self.options]
            raise UserError(f"domain encoder '{name}' {why}: leave out {few(keys)}")


def _numbers(given: Any, name: str, above: float | None = None) -> tuple[float, ...]:
    """Return a list of numbers, one per channel, as a tuple."""
    key = f"{name} (DOMAIN.{name.upper()})"
    words = "numbers on a 0-1 scale, one per channel, such as [0.485, 0.456, 0.406]"
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} is {shown(given)}; it must be {words}") from error
    low = -1e6 if above is None else above
    if isinstance(given, str) or not all(low < number < 1e6 for number in numbers):
        positive = " above 0" if above is not None else ""
        raise UserError(f"{key} is {shown(given)}; it must be {words}{positive}")
    return numbers


def one_or_several(text: str) -> str | list[str]:
    """Return a text as it is, or the names in ``"[a, b]"``."""
    found = several(text)
    return text if found == [text] else found


def several(value: Any) -> list[str]:
    """Return the names in a key that takes one or more: a text, a list, or ``"[a, b]"``."""
    if isinstance(value, str):
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return [value]
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return list(value)
