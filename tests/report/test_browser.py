"""The page in a real browser: Chromium, where there is one."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from dplq.report import Options, RunPage, render_run
from tests.report.runs import table, write_images, write_run
from tools.browser import browse, find_browser

CHROMIUM = find_browser() or ""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
# A window cannot be as narrow as a phone, a frame can. What is wrong is written into the title.
WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><style>body{{margin:0}}iframe{{border:0}}</style>
<iframe id="page" width="{width}" height="800" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const frame = document.getElementById("page"), root = frame.contentDocument.documentElement;
  const boxes = [...root.querySelectorAll("figure svg, .gallery img")];
  document.title = JSON.stringify({{
    inner: frame.contentWindow.innerWidth,
    scroll: root.scrollWidth,
    figures: root.querySelectorAll("figure").length,
    boxes: boxes.length,
    undrawn: boxes.filter(box => box.getBoundingClientRect().height < 40).length,
    broken: [...root.querySelectorAll("img")].filter(image => !image.naturalWidth).length,
    outside: [...root.querySelectorAll("section > *, header *, nav *")]
      .filter(box => box.getBoundingClientRect().right > frame.contentWindow.innerWidth + 1).length,
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("run")
    long_names = [f"a class with quite a long name, number {k}" for k in range(20)]
    predictions = table(["forest", "lake" * 30, *long_names], 220, skill=2.5)
    write_images(folder, predictions.paths)
    return render_run(
        RunPage.read(write_run(folder, predictions), Options(changed={"A.B": "c" * 300}))
    )


def opened(page: str, width: int, folder: Path) -> tuple[dict[str, int], str]:
    """Return what the browser measured, and its console."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(width=width, page=html.escape(page)), encoding="utf-8")
    flags = ["--enable-logging=stderr", "--window-size=1400,900", "--dump-dom"]
    done = browse(CHROMIUM, wrapper.as_uri(), *flags)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(title[1])), "\n".join(console)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_nothing_scrolls_sideways(page, width, tmp_path):
    measured, console = opened(page, width, tmp_path)
    assert console == ""
    assert measured["inner"] == width
    assert measured["scroll"] <= width
    assert measured["outside"] == 0
    assert measured["figures"] == 4
    assert measured["boxes"] == 4 + 24
    assert measured["undrawn"] == measured["broken"] == 0


def pages_printed(page: str, folder: Path) -> int:
    """Return on how many sheets the browser prints a page."""
    file, printed = folder / "page.html", folder / "page.pdf"
    file.write_text(page, encoding="utf-8")
    browse(CHROMIUM, file.as_uri(), f"--print-to-pdf={printed}")
    return len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))


def test_what_is_folded_away_is_printed(page, tmp_path):
    rows = "<p>x</p>" * 200
    folded = page.replace("</main>", f"<details><summary>more</summary>{rows}</details></main>")
    plain = page.replace("</main>", f"<p>more</p>{rows}</main>")
    sheets = pages_printed(folded, tmp_path)
    assert sheets > pages_printed(page, tmp_path)
    assert abs(sheets - pages_printed(plain, tmp_path)) <= 1


def test_the_browser_test_sees_what_it_is_for(page, tmp_path):
    wide = page.replace("<main>", '<main><p style="width: 1500px">x</p><script>nothing()</script>')
    broken = wide.replace("data:image/jpeg;base64,", "data:image/jpeg;base64,AAAA", 1)
    measured, console = opened(broken, 390, tmp_path)
    assert measured["scroll"] > 390
    assert measured["broken"] == 1
    assert "nothing is not defined" in console
