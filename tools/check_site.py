"""Hook of mkdocs: a page that loads something from another host is a warning, so an error.

The site is to work without network; links to other hosts are followed by readers, not loaded.
"""

from __future__ import annotations

import logging
from html.parser import HTMLParser
from typing import Any

logger = logging.getLogger("mkdocs.hooks.check_site")  # below mkdocs: --strict counts its warnings
LOADED = {  # by tag: the attribute that names what a browser loads
    **dict.fromkeys(("audio", "embed", "iframe", "img", "script", "source", "video"), "src"),
    **{"link": "href", "object": "data"},
}
NOT_LOADED = {"canonical", "alternate", "next", "prev"}  # kinds of <link>


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if not NOT_LOADED & set(given.get("rel", "").split()):
            self.found.append(given.get(LOADED.get(tag, ""), ""))


def loaded_from_elsewhere(page: str) -> list[str]:
    """Return the addresses on other hosts that a browser loads for an HTML page."""
    reader = _Loaded()
    reader.feed(page)
    return [url for url in reader.found if url.startswith(("http://", "https://", "//"))]


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Warn of what a page loads from other hosts; return the page as it is."""
    for url in loaded_from_elsewhere(output):
        logger.warning("%s loads %s: keep a copy in docs/", page.file.src_uri, url)
    return output
