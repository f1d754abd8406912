"""Registry of classes and functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import check_availability


class Registry:
    """Registry of classes or functions by name.

    ``@REGISTRY.register()`` above a definition registers it under its own name;
    ``REGISTRY.register(obj)`` does the same for an existing object.
    """

    def __init__(self, name: str):
        """Create an empty registry; `name` (for example "TRAINER") appears in the errors."""
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Callable | None:
        """Register an object, or return a decorator that does.

        Args:
            obj: a class or function; None when used as a decorator.
            force: replace an entry of the same name.

        Raises:
            KeyError: the name is taken and `force` is False.
        """
        if obj is None:
            return lambda definition: self._add(definition, force)
        self._add(obj, force)
        return None

    def _add(self, obj: Any, force: bool) -> Any:
        name = obj.__name__
        if name in self._obj_map and not force:
            raise KeyError(
                f"{self._name} registry: '{name}' of {obj.__module__} is already registered "
                f"by {self._obj_map[name].__module__}"
            )
        self._obj_map[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return the object registered as `name`; ChoiceError (a KeyError) if there is none."""
        check_availability(name, self._obj_map, self._name.lower())
        return self._obj_map[name]

    def build(self, name: str, *args: Any, announce: str = "", **kwargs: Any) -> Any:
        """Call the object registered as `name`.

        Args:
            name: which one.
            *args: passed on.
            announce: if given, the line "{announce}: {name}" is printed first.
            **kwargs: passed on.
        """
        obj = self.get(name)
        if announce:
            print(f"{announce}: {name}")
        return obj(*args, **kwargs)

    def registered_names(self) -> list[str]:
        """Return all names, in order of registration."""
        return list(self._obj_map)
