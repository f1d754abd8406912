"""The command ``dplq``, also ``python -m dplq``: it hands over to one of its commands.

A command's module is imported when it is requested, so that ``--help`` imports none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {  # name -> module with `main(argv)`, and what it does
    "demo": ("dplq.cli.demo", "the whole method on built-in images: train, test, table"),
    "train": ("dplq.cli.train", "train or test one model"),
    "run": ("dplq.cli.run", "an experiment: many runs, here, on several GPUs or on a cluster"),
    "data": ("dplq.data.__main__", "list, describe, download and check the datasets"),
    "models": ("dplq.cli.models", "list, describe and download published CLIPs and encoders"),
    "predict": ("dplq.cli.predict", "classify images with a trained model"),
    "report": ("dplq.cli.report", "the HTML page of a run, or of all runs below a folder"),
    "export": ("dplq.cli.export", "write a model as an ONNX or torch.export program"),
    "results": ("dplq.results.__main__", "tables of finished runs"),
    "share": ("dplq.cli.share", "a folder, or a repository of the Hub, from a run"),
}
EXAMPLES = """examples:
    dplq demo
    dplq data check OwnImages --root my_images
    dplq train --trainer QuaternionPrompt --dataset-config-file own_images --root my_images \\
        --config-file demo_residual_head --output-dir output/mine --seed 1 DOMAIN.ENCODER clip
    dplq results output"""
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
            EXAMPLES,
            "",
            "`dplq COMMAND --help` describes a command, `dplq --version` prints the version.",
            "Exit code 2: bad input.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return its exit code.

    Args:
        argv: the arguments; None: those of the process.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # here: at the interpreter's end nothing catches a closed pipe
    except BrokenPipeError:
        from dplq.io.exit_code import closed_pipe

        return closed_pipe()


def _run(given: list[str]) -> int:
    name, rest = (given or [""])[0], given[1:]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        import dplq

        print(f"dplq {dplq.__version__}")
        return 0
    if name not in COMMANDS:
        from dplq.errors import printable, suggest

        what = f"unknown command '{printable(name)}'" if name else "which command?"
        print(f"error: {what}{'.' * bool(name)}{suggest(name, COMMANDS)}", file=sys.stderr)
        return MISTAKE
    return importlib.import_module(COMMANDS[name][0]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
