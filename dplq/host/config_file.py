"""The content of a YAML config file, refused where it is more than nested keys and values."""

from __future__ import annotations

from typing import Any

import yaml

from dplq.errors import UserError, shown

MAX_BYTES = 1 << 20  # a thousand times the largest config file
MAX_DEPTH = 20
MAX_VALUES = 10_000  # with those that aliases repeat


def read_config_file(path: str) -> dict[Any, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is too large or nested too deeply, holds a key twice, or is no
            mapping; the message names the file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"The config file {path} has more than {MAX_BYTES:,} bytes.")
        parsed = _parse(path, content.decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())  # PyYAML's run over several lines
        raise UserError(f"The config file {path} cannot be read: {words}") from error
    except RecursionError as error:
        raise UserError(_too_deep(path)) from error
    if not isinstance(parsed, dict):
        raise UserError(f"The config file {path} must hold KEY: VALUE lines, not {shown(parsed)}.")
    return parsed


def _parse(path: str, text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        _Tree(path).check(root)
        return loader.construct_document(root)
    except (KeyError, AttributeError, TypeError) as error:
        # PyYAML's for tags that do not fit their value, such as `!!bool x`
        raise ValueError(f"a tag (!!) does not fit its value ({error})") from error
    finally:
        loader.dispose()


class _Tree:
    """Walk over PyYAML's nodes, through the aliases: they may refer to themselves, or multiply."""

    def __init__(self, path: str) -> None:
        self.path, self.values = path, 0

    def check(self, node: yaml.Node, key: str = "", depth: int = 0) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise UserError(
                f"{self.path} holds more than {MAX_VALUES:,} values, with those that aliases (*) "
                "repeat: write a config file without them."
            )
        if depth > MAX_DEPTH:
            raise UserError(_too_deep(self.path))
        if isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self.check(value, key, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            self._check_mapping(node, key, depth)

    def _check_mapping(self, node: yaml.MappingNode, key: str, depth: int) -> None:
        names = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise UserError(f"{self.path}: {key or 'the file'} has a key that is no text.")
            full = f"{key}.{name.value}" if key else name.value
            if name.value in names:
                raise UserError(f"{self.path}: the key {full} is there twice; delete one of them.")
            names.add(name.value)
            self.check(value, full, depth + 1)


def _too_deep(path: str) -> str:
    return f"{path} is nested too deeply, or refers to itself: more than {MAX_DEPTH} levels."
