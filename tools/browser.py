"""A headless Chromium, for what the tools and tests draw, print or read in a browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120  # seconds


def find_browser() -> str | None:
    """Return the path of the browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def browse(browser: str, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window, with a profile of its own; return what is printed.

    Raises:
        subprocess.CalledProcessError: the browser failed.
        subprocess.TimeoutExpired: it took more than `PATIENCE`.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", *flags]
        command += [f"--user-data-dir={profile}", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
