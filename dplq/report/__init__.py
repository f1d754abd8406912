"""The HTML page of a run, or of many: one file that needs nothing else.

`run_page` holds what is known of a run, `sections` makes the parts of its page, `page` puts them
together, `overview` is the page of a folder with many runs.
"""

from dplq.report.overview import render_overview
from dplq.report.page import render_run
from dplq.report.run_page import Options, RunPage
from dplq.report.section import Section

__all__ = ["Options", "RunPage", "Section", "render_overview", "render_run"]
