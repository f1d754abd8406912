"""Names in a piece of code: whether imports, attributes and arguments of calls exist."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import sys
import typing
from types import ModuleType
from typing import Any

GIVEN = {"cfg", "images", "labels", "classnames", "new_names", "picture"}  # the reader's own
UNKNOWN = object()


class Instance(typing.NamedTuple):
    """A value of which only the class is known."""

    kind: Any


class Names(ast.NodeVisitor):
    """Resolves the names of a block: imports, attributes of our classes, arguments of calls.

    Raises:
        ImportError: a module or one of its names does not exist.
        AttributeError: a class of ours has no attribute of that name.
        NameError: a name is neither defined nor given by the reader.
        TypeError: the arguments of a call do not fit the function.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = dict.fromkeys(GIVEN, UNKNOWN) | vars(builtins)

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self._module(name.name)
            top = name.name.partition(".")[0]
            self.known[name.asname or top] = sys.modules.get(top, UNKNOWN)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module(node.module)
        for name in node.names:
            found = UNKNOWN if module is UNKNOWN else getattr(module, name.name, None)
            if found is None:
                raise ImportError(f"{node.module} has no {name.name}")
            self.known[name.asname or name.name] = found

    @staticmethod
    def _module(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            if name.startswith("dplq"):
                raise
            return UNKNOWN  # of an extra that is not installed

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, element(self.value(node.iter)))
        for statement in node.body:
            self.visit(statement)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.known[target.id] = value
        else:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    self.known[name.id] = UNKNOWN

    def value(self, node: ast.expr) -> Any:
        """Return what is known of an expression."""
        if isinstance(node, ast.Name):
            if node.id not in self.known:
                raise NameError(node.id)
            return self.known[node.id]
        if isinstance(node, ast.Attribute):
            return attribute(self.value(node.value), node.attr)
        if isinstance(node, ast.Call):
            function = self.value(node.func)
            given = [self.value(one) for one in node.args]
            named = {one.arg: self.value(one.value) for one in node.keywords if one.arg}
            return called(function, given, named)
        if isinstance(node, ast.ListComp):
            for loop in node.generators:
                self._bind(loop.target, element(self.value(loop.iter)))
            return self.value(node.elt) and UNKNOWN
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
        return UNKNOWN


def attribute(owner: Any, name: str) -> Any:
    """Return what is known of an attribute."""
    if owner is UNKNOWN:
        return UNKNOWN
    if not isinstance(owner, Instance):
        return getattr(owner, name)
    if any(name in vars(kind).get("__annotations__", ()) for kind in owner.kind.__mro__):
        return UNKNOWN
    if isinstance(inspect.getattr_static(owner.kind, name), property | functools.cached_property):
        return UNKNOWN
    return functools.partial(getattr(owner.kind, name), None)


def called(function: Any, given: list[Any], named: dict[str, Any]) -> Any:
    """Bind the arguments of a call; return what is known of its result."""
    if function is UNKNOWN or isinstance(function, ModuleType):
        return UNKNOWN
    if isinstance(function, Instance):
        function = functools.partial(function.kind.forward, None)
    inner = function.func if isinstance(function, functools.partial) else function
    if not getattr(inner, "__module__", "").startswith("dplq"):
        return UNKNOWN
    bound = inspect.signature(function).bind(*given, **named)
    if inspect.isclass(function):
        if hasattr(function, "settings_class"):
            inspect.signature(function.settings_class).bind(**bound.arguments.get("settings", {}))
        return Instance(function)
    return of_type(hint_of(inner, "return"))


def hint_of(owner: Any, name: str) -> Any:
    """Return the type of an annotation; None where its module does not import it."""
    try:
        return eval(owner.__annotations__[name], vars(sys.modules[owner.__module__]))
    except (KeyError, NameError):
        return None


def of_type(hint: Any) -> Any:
    """Return what is known of a value with this annotation."""
    if typing.get_origin(hint) is list:
        return [of_type(typing.get_args(hint)[0])]
    ours = inspect.isclass(hint) and hint.__module__.startswith("dplq")
    return Instance(hint) if ours else UNKNOWN


def element(value: Any) -> Any:
    """Return what is known of the elements of a value."""
    return value[0] if isinstance(value, list) else UNKNOWN
