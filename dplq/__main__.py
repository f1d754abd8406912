"""The command ``dplq``, also ``python -m dplq``: it hands over to one of its commands.

A command's module is imported when it is requested, so that ``--help`` imports none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {  # name -> module with `main(argv)`, and what it does
    "data": ("dplq.data.__main__", "list, describe, download and check the datasets"),
    "models": ("dplq.cli.models", "list, describe and download published CLIPs and encoders"),
    "report": ("dplq.cli.report", "the HTML page of a run, or of all runs below a folder"),
    "results": ("dplq.results.__main__", "tables of finished runs"),
}
MISTAKE = 2


def usage() -> str:
    """Return the help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dplq COMMAND ...",
            "",
            *lines,
            "",
            "`dplq COMMAND --help` describes a command. Exit code 2: bad input.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return its exit code.

    Args:
        argv: the arguments; None: those of the process.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    name, rest = (given or [""])[0], given[1:]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        from dplq.errors import printable, suggest

        what = f"unknown command '{printable(name)}'" if name else "which command?"
        print(f"error: {what}{'.' * bool(name)}{suggest(name, COMMANDS)}", file=sys.stderr)
        return MISTAKE
    return importlib.import_module(COMMANDS[name][0]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
