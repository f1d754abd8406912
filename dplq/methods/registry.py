"""Registry of all methods by name, and their factory."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dplq.errors import UserError, suggest

if TYPE_CHECKING:
    from dplq.clip.backbone import Backbone
    from dplq.domain.encoder import DomainEncoder
    from dplq.methods.base import CLIPModel

logger = logging.getLogger(__name__)
OWN_METHOD = "One of your own is known once its module is imported (--import MODULE)."
T = TypeVar("T", bound="type[CLIPModel]")


class MethodRegistry(Mapping[str, "type[CLIPModel]"]):
    """Model classes by method name; those of this package are imported on first use."""

    def __init__(self) -> None:
        self._classes: dict[str, type[CLIPModel]] = {}
        self._is_complete = False

    def register(self, cls: T) -> T:
        """Add a model class under its `method`; a name that is taken stays, with a warning."""
        first = self._classes.setdefault(cls.method, cls)
        if first is not cls:
            logger.warning(
                "The method %s of %s is not registered: %s has registered one of that name.",
                *(cls.method, cls.__module__, first.__module__),
            )
        return cls

    def __getitem__(self, name: str) -> type[CLIPModel]:
        """Return the model class of a method.

        Raises:
            UserError: there is none; with the nearest names.
        """
        self._import_all()
        if name not in self._classes:
            raise UserError(
                f"There is no method '{name}'.{suggest(name, self._classes)} {OWN_METHOD}"
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        self._import_all()
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        self._import_all()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        self._import_all()
        return len(self._classes)

    def _import_all(self) -> None:
        if self._is_complete:
            return
        package = importlib.import_module("dplq.methods")
        for found in pkgutil.walk_packages(package.__path__, "dplq.methods."):
            importlib.import_module(found.name)
        self._is_complete = True


METHODS = MethodRegistry()
register_method = METHODS.register


def check_registered(cls: type[CLIPModel]) -> None:
    """Refuse (UserError) a model class that the `method` in its checkpoint does not lead to."""
    known = METHODS[cls.method] if cls.method and cls.method in METHODS else None
    if known is cls:
        return
    taken = f", which is that of {known.__module__}.{known.__qualname__}" if known else ""
    raise UserError(
        f"The method of {cls.__module__}.{cls.__qualname__} is '{cls.method}'{taken}: a checkpoint "
        "of it could not be opened. Give the class a `method` of its own, and @register_method."
    )


def create_model(
    method: str,
    clip: Backbone,
    classnames: Sequence[str],
    *,
    domain: DomainEncoder | None = None,
    seed: int | None = None,
    **settings: Any,
) -> CLIPModel:
    """Build the model of a method.

    Args:
        method: a name of `METHODS`, such as "CoOp".
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        domain: the domain encoder, for methods that use one.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of the method's settings class.

    Raises:
        UserError: unknown method, or a setting that does not fit the backbone.
        TypeError: unknown setting.
    """
    cls: Any = METHODS[method]  # constructors differ in whether they have a domain encoder
    if domain is not None and not cls.uses_domain:
        raise UserError(f"{method} has no domain encoder: leave domain out.")
    parts = (clip, domain) if cls.uses_domain else (clip,)
    return cls(*parts, classnames, seed=seed, **settings)
