"""Formatting of result tables: plain text, GitHub, LaTeX or CSV, with a note."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from dplq.errors import UserError, suggest
from dplq.results.summary import Stat

FORMATS = ("simple", "github", "latex", "csv")


@dataclass(frozen=True)
class Line:
    """One line of a table: labels, accuracies by column, other numbers."""

    labels: Mapping[str, str]
    stats: Mapping[str, Stat]
    rounded: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A column of other numbers: its heading and the format of a value, in text."""

    heading: str
    text: Callable[[float], str]


@dataclass(frozen=True)
class Table:
    """A table of results and its note.

    Attributes:
        lines: all with the same labels.
        columns: the accuracies.
        note: lines under the table.
        numbers: the other numbers, by their name in `Line.numbers`.
        dropped: labels that text formats omit where they are the same in all lines.
        noted: labels that text formats move to the note where they are.
    """

    lines: Sequence[Line]
    columns: Sequence[str]
    note: Sequence[str]
    numbers: Mapping[str, Number] = field(default_factory=dict)
    dropped: Sequence[str] = ("output",)
    noted: Sequence[str] = ()

    def render(self, fmt: str, *, ci95: bool = False) -> str:
        """Return the table as text.

        Args:
            fmt: one of `FORMATS`. "csv" has one column per number and no note; in "latex" the
                note is a comment.
            ci95: show half the 95 % interval in place of the standard deviation.

        Raises:
            UserError: `fmt` is unknown.
        """
        if fmt not in FORMATS:
            raise UserError(f"unknown table format '{fmt}'.{suggest(fmt, FORMATS)}")
        if fmt == "csv":
            return self._csv(ci95)
        is_latex = fmt == "latex"
        names = self._shown()
        escape = _escape_latex if is_latex else str
        headings = [*names, *self.columns, *(number.heading for number in self.numbers.values())]
        table = tabulate(
            [self._text_line(line, names, ci95, is_latex) for line in self.lines],
            headers=[escape(heading) for heading in headings],
            tablefmt="latex_raw" if is_latex else fmt,
            disable_numparse=True,
        )
        note = self.full_note().splitlines()
        return "\n".join([table, "", *(f"% {line}" if is_latex else line for line in note)])

    def full_note(self) -> str:
        """Return the note of text formats, including the labels that all lines share."""
        first = self.lines[0].labels
        shared = [f"{name} {first[name]}" for name in self.noted if self._is_constant(name)]
        return "\n".join([*([f"All lines: {', '.join(shared)}."] if shared else []), *self.note])

    def _is_constant(self, name: str) -> bool:
        return len({line.labels[name] for line in self.lines}) == 1

    def _shown(self) -> list[str]:
        hidden = [name for name in (*self.dropped, *self.noted) if self._is_constant(name)]
        return [name for name in self.lines[0].labels if name not in hidden]

    def _text_line(self, line: Line, names: Sequence[str], ci95: bool, is_latex: bool) -> list[str]:
        starred = "dataset" if "dataset" in names else "trainer"
        labels = [line.labels[name] + "*" * (line.rounded and name == starred) for name in names]
        return [
            *(map(_escape_latex, labels) if is_latex else labels),
            *(_cell(line.stats.get(column), ci95, is_latex) for column in self.columns),
            *(
                number.text(line.numbers[name]) if name in line.numbers else "-"
                for name, number in self.numbers.items()
            ),
        ]

    def _csv(self, ci95: bool) -> str:
        spread_name = "ci95" if ci95 else "std"
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        pairs = [f"{name}_{what}" for name in self.columns for what in ("mean", spread_name)]
        writer.writerow([*self.lines[0].labels, *pairs, "rounded", *self.numbers])
        for line in self.lines:
            values = []
            for name in self.columns:
                stat = line.stats.get(name)
                pair = (stat.mean, stat.spread(ci95)) if stat else (None, None)
                values += ["" if value is None else f"{value:.4f}" for value in pair]
            values.append("yes" if line.rounded else "no")
            values += [f"{line.numbers[n]:.10g}" if n in line.numbers else "" for n in self.numbers]
            writer.writerow([*line.labels.values(), *values])
        return out.getvalue().rstrip("\n")


def _escape_latex(text: str) -> str:
    return re.sub(r"([_%&#$])", r"\\\1", text)


def _cell(stat: Stat | None, ci95: bool, is_latex: bool) -> str:
    if stat is None:
        return "-"
    if stat.std is None:  # an average over datasets
        return f"{stat.mean:.2f}"
    spread = stat.spread(ci95)
    half = "-" if spread is None else f"{spread:.2f}"
    return f"${stat.mean:.2f} \\pm {half}$" if is_latex else f"{stat.mean:.2f} +- {half}"
