"""Options of the commands that load a trained model: which classes, epoch and weights."""

from __future__ import annotations

import argparse

from dplq.io.imports import add_import


def whole_number(text: str) -> int:
    """Return a whole number of 0 or more; argparse turns the ValueError into a message."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


whole_number.__name__ = "whole number from 0"  # in messages


def add_epoch(parser: argparse.ArgumentParser) -> None:
    """Add ``--epoch``."""
    parser.add_argument(
        "--epoch", metavar="N", type=whole_number, help="of a run, if not its best or last"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes``, ``--epoch``, ``--weights``, ``--domain-weights`` and ``--import``."""
    add = parser.add_argument
    add(
        "--classes",
        metavar="A,B,C|@FILE",
        help="in place of the trained classes; @FILE has one on each line",
    )
    add_epoch(parser)
    add("--weights", metavar="PATH", default="", help="CLIP's weights, where they have moved")
    add(
        "--domain-weights",
        metavar="PATH",
        default="",
        help="the same of the domain encoder; of several: [A, B]",
    )
    add_import(parser)
