"""Names that are written in several ways: of classes, columns, parts."""

from __future__ import annotations

import re
import unicodedata


def spelling(name: str) -> str:
    """Return the name without what spellings may differ in: case, spaces, `_`, `-`.

    Accents are composed, which macOS and archives made there do not do.
    """
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name)).casefold()
