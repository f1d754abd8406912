"""Search the built site from its folder: ``python -m tools.try_search SITE WORDS``.

A headless Chromium opens the first page as a file, as a reader without a server and a network does.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tools.browser import NAMES, browse, find_browser

RESULT = re.compile(r'href="file:[^"]*/([\w-]+\.html)[^"]*" class="md-search-result__link"')


def search(browser: str, site: Path, words: str) -> list[str]:
    """Return the pages that the site's search finds, each once, best first."""
    url = f"{(site.absolute() / 'index.html').as_uri()}?q={quote(words)}"
    flags = ["--virtual-time-budget=20000", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]
    done = browse(browser, url, *flags)
    return list(dict.fromkeys(RESULT.findall(done.stdout)))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the pages that are found; return 1 if there are none."""
    parser = argparse.ArgumentParser(prog="python -m tools.try_search", description=__doc__)
    parser.add_argument("site", type=Path, help="folder of the built site")
    parser.add_argument("words", help="what to search for")
    args = parser.parse_args(argv)
    browser = find_browser()
    if browser is None:
        print(f"The search was not tried: there is no browser ({', '.join(NAMES)}).")
        return 0
    found = search(browser, args.site, args.words)
    print(f"'{args.words}': {', '.join(found) or 'no page'}")
    return int(not found)


if __name__ == "__main__":
    sys.exit(main())
