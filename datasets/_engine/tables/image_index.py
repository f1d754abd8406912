"""Find images by what a table calls them: a path, a part of a path, a name, a stem."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from dplq.errors import UserError, printable
from dplq.io.validation.paths import name_problem

from ..layout.folders import NOT_CLASSES
from ..layout.names import is_system_file


def posix(path: str) -> str:
    r"""Return a path with single slashes and no step `.`: `.\a\.\b.png` -> `a/b.png`."""
    steps = re.sub(r"[\\/]+", "/", path).split("/")
    return "/".join(step for step in steps if step != ".")


class ImageIndex:
    """All images below a folder, without hidden files and folders.

    Args:
        folder: absolute path.
        extensions: of images, in lower case with the dot.
        anywhere: a path may also lead to an image that is hidden or not below the folder; the
            folder, which may be a whole home, is listed only if a value is no path.
    """

    def __init__(self, folder: str, extensions: Sequence[str], anywhere: bool = False) -> None:
        self.folder = folder
        self.anywhere = anywhere
        self.extensions = tuple(extensions)

    @cached_property
    def _files(self) -> list[str]:
        return sorted(_files_below(self.folder))

    @cached_property
    def paths(self) -> list[str]:
        """POSIX paths relative to `folder`, sorted; the folder is listed for the first time."""
        return [path for path in self._files if self.is_image_name(path)]

    @cached_property
    def _others(self) -> dict[str, list[str]]:
        return _by_name(path for path in self._files if not self.is_image_name(path))

    @cached_property
    def _exact(self) -> dict[str, str]:
        return {_key(path): path for path in self.paths}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _by_name(self.paths)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _by_name(self.paths, stems=True)

    def is_image_name(self, value: str) -> bool:
        """Return whether a name ends like that of an image."""
        return value.lower().endswith(self.extensions)

    def at(self, value: str, base: str) -> str:
        """Return the image at a path, "" if there is none; an absolute path if it lies elsewhere.

        Args:
            value: path with either slash, also absolute or with `..`.
            base: absolute folder that it is relative to.
        """
        if self.anywhere and (found := self._there(os.path.normpath(os.path.join(base, value)))):
            return found
        folder = _key(self.folder).rstrip("/") + "/"
        path = posixpath.normpath(posixpath.join(_key(base), _key(value)))
        return self._exact.get(path[len(folder) :], "") if path.startswith(folder) else ""

    def _there(self, path: str) -> str:
        """Return an image as `at` does, without listing the folder; "" if there is none."""
        if not (self.is_image_name(path) and os.path.isfile(path)):
            return ""
        below = posix(os.path.relpath(path, self.folder))
        is_listed = not below.startswith("../") and all(
            _is_visible(step) and step not in NOT_CLASSES for step in below.split("/")
        )
        return below if is_listed else path

    def find(self, value: str) -> list[str]:
        """Return the images that a value may mean: in any folder, with or without extension."""
        at = self.at(value, self.folder)
        if at:
            return [at]
        value = posixpath.normpath(_key(value))
        name = value.rsplit("/", 1)[-1]
        found = [path for path in self._by_name.get(name, ()) if _ends(_key(path), value)]
        stems = () if found else self._by_stem.get(name, ())
        return found or [p for p in stems if _ends(os.path.splitext(_key(p))[0], value)]

    def alike(self, value: str) -> list[str]:
        """Return the images of this name in whatever folder and case: perhaps what was meant."""
        name = _key(value).rsplit("/", 1)[-1].casefold()
        alike = (paths for key, paths in self._by_name.items() if key.casefold() == name)
        return [path for paths in alike for path in paths]

    def is_other_file(self, value: str) -> bool:
        """Return whether a value is a file that does not end like an image."""
        value = posixpath.normpath(_key(value))
        return any(_ends(_key(p), value) for p in self._others.get(value.rsplit("/", 1)[-1], ()))


def _by_name(paths: Iterable[str], stems: bool = False) -> dict[str, list[str]]:
    """Return paths by file name, or by file name without extension."""
    found: dict[str, list[str]] = {}
    for path in paths:
        name = _key(path.rsplit("/", 1)[-1])
        found.setdefault(os.path.splitext(name)[0] if stems else name, []).append(path)
    return found


def _key(path: str) -> str:
    """Return a path as paths are compared: with slashes, accents composed."""
    return unicodedata.normalize("NFC", posix(path))


def _ends(path: str, value: str) -> bool:
    return path == value or path.endswith("/" + value)


def _files_below(folder: str) -> Iterator[str]:
    """Yield the visible files below a folder; linked folders are followed once."""

    def fail(error: OSError) -> None:
        raise UserError(f"Cannot list {error.filename}: {error.strerror}.") from error

    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _is_visible(name) and name not in NOT_CLASSES]
        below = os.path.relpath(here, folder).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        for name in files:
            if not _is_visible(name):
                continue
            if problem := name_problem(prefix + name):
                path = printable(os.path.join(folder, prefix + name))
                raise UserError(f"{path}: this name {problem}. Rename it.")
            yield prefix + name


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and not is_system_file(name)
