"""Strict reading of YAML files: nested keys and values alone."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar, TypeVar

import yaml

from dplq.errors import one_line, printable

from .schema import InvalidContent, convert, read_text

T = TypeVar("T")
MAX_BYTES = 1 << 20  # a thousand times the largest config file
MAX_DEPTH = 20
MAX_VALUES = 10_000  # with those that aliases repeat


# 4:00:00 and 1:30.5, which YAML 1.1 reads as 14400 and 90.5; they stay text, as in YAML 1.2
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without numbers of base 60."""

    # by the first character; the first that matches counts
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [("tag:yaml.org,2002:str", BASE_60)] * (first in "+-0123456789") + resolvers
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(
    path: str | os.PathLike[str], shape: type[T] | Any = Any, *, remedy: str = "Repair it."
) -> T:
    """Return the content of a YAML file, checked whole.

    Args:
        path: the file, in UTF-8.
        shape: the type that it must have, as for `dplq.io.validation.schema.read_json`.
        remedy: what to do with a file that is refused, a sentence.

    Raises:
        InvalidContent: it cannot be read, is too large or nested too deeply, holds a key twice, or
            is not of that type; file and key are named.
    """
    where = printable(str(path))
    text = read_text(path, remedy=remedy, max_bytes=MAX_BYTES)
    try:
        content = _parse(text, where, remedy)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())  # PyYAML's run over several lines
        raise InvalidContent(where, f"it is not valid YAML ({words})", remedy) from error
    except RecursionError as error:
        raise InvalidContent(where, _TOO_DEEP, remedy) from error
    except ValueError as error:  # such as a date that does not exist
        raise InvalidContent(where, one_line(error), remedy) from error
    return convert(content, shape, where=where, remedy=remedy)


def _parse(text: str, where: str, remedy: str) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _Tree(where, remedy).check(root)
        return loader.construct_document(root)
    except (KeyError, AttributeError, TypeError) as error:
        # PyYAML's for tags that do not fit their value, such as `!!bool x`
        problem = f"a tag (!!) does not fit its value ({one_line(error)})"
        raise InvalidContent(where, problem, remedy) from error
    finally:
        loader.dispose()


class _Tree:
    """Walk over PyYAML's nodes, through the aliases: they may refer to themselves, or multiply."""

    def __init__(self, where: str, remedy: str) -> None:
        self.where, self.remedy, self.values = where, remedy, 0

    def check(self, node: yaml.Node, key: str = "", depth: int = 0) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise self._error(
                f"it holds more than {MAX_VALUES:,} values, with those that aliases (*) repeat"
            )
        if depth > MAX_DEPTH:
            raise self._error(_TOO_DEEP)
        if isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self.check(value, key, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            self._check_mapping(node, key, depth)

    def _check_mapping(self, node: yaml.MappingNode, key: str, depth: int) -> None:
        names = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise self._error(f"{key or 'the file'} has a key that is no text")
            full = f"{key}.{name.value}" if key else name.value
            if name.value in names:
                raise self._error(f"the key {full} is there twice")
            names.add(name.value)
            self.check(value, full, depth + 1)

    def _error(self, problem: str) -> InvalidContent:
        return InvalidContent(self.where, problem, self.remedy)


_TOO_DEEP = f"it is nested too deeply, or refers to itself: more than {MAX_DEPTH} levels"
