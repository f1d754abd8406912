"""Formatting of result tables: plain text, GitHub, LaTeX, HTML or CSV, with a note."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tabulate import tabulate

from dplq.errors import UserError, suggest
from dplq.results import FORMATS
from dplq.results.statistics import best_ones
from dplq.results.summary import Stat

BOLD_NOTE = (
    "Bold: the best of its column and dataset, and what cannot be told apart from it: p >= 5 % in a"
    " paired t-test over the seeds that both have, in averages of datasets over datasets and seeds"
    " (at least two; not corrected for several tests)."
)
LATEX = {  # other special characters take a backslash
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
BOOKTABS = "booktabs"  # drawn by pandas: tabulate's own would escape the LaTeX of the cells


@dataclass(frozen=True)
class Style:
    """How a text format writes what the library that draws it does not."""

    tablefmt: str
    interval: str = "{} +- {}"
    alone: str = "{} +- -"  # of one seed, which has no spread
    bold: str = ""  # empty: it has none
    note: str = "{}"
    escape: Callable[[str], str] = str
    escape_note: Callable[[str], str] = str


def _escape_latex(text: str) -> str:
    return re.sub(r"[_%&#${}\\~^]", lambda found: LATEX.get(found[0], f"\\{found[0]}"), text)


def escape_markdown(text: str) -> str:
    """Return a text in which no character breaks a cell or is markup; names keep their _."""
    return re.sub(r"([\\|*<>`])", r"\\\1", text)


STYLES = {
    "simple": Style("simple"),
    "github": Style("github", bold="**{}**", note="- {}", escape=escape_markdown),
    "latex": Style(
        BOOKTABS,
        r"${} \pm {}$",
        r"${} \pm -$",
        r"\textbf{{\boldmath {}}}",
        "% {}",
        escape=_escape_latex,
    ),
    "html": Style(
        "unsafehtml", "{} &plusmn; {}", "{}", "<b>{}</b>", "<p>{}</p>", html.escape, html.escape
    ),
}


@dataclass(frozen=True)
class Line:
    """One line of a table: labels, accuracies by column, other numbers.

    `values` are what the accuracies are averages of, by column and seed; a column without them is
    never bold. `parts` are the weights in the averages that have other runs than seeds, by column,
    seed and name, and `splits` the hashes of the data's splits, for `dplq.results.comparable`.
    """

    labels: Mapping[str, str]
    stats: Mapping[str, Stat]
    rounded: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Mapping[Any, float]] = field(default_factory=dict)
    parts: Mapping[str, Mapping[Any, Mapping[str, Fraction]]] = field(default_factory=dict)
    splits: frozenset[str] = frozenset()


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
        group: labels of the lines among which the best are bold: none of them is all lines; None:
            nothing is bold.
    """

    lines: Sequence[Line]
    columns: Sequence[str]
    note: Sequence[str]
    numbers: Mapping[str, Number] = field(default_factory=dict)
    dropped: Sequence[str] = ("output",)
    noted: Sequence[str] = ()
    group: Sequence[str] | None = None

    def render(self, fmt: str, *, ci95: bool = False) -> str:
        """Return the table as text.

        Args:
            fmt: one of `FORMATS`. "csv" has one column per number and no note; in "latex" the
                note is a comment. Neither "csv" nor "simple" have bold numbers.
            ci95: show half the 95 % interval in place of the standard deviation.

        Raises:
            UserError: `fmt` is unknown.
        """
        if fmt not in FORMATS:
            raise UserError(f"unknown table format '{fmt}'.{suggest(fmt, FORMATS)}")
        if fmt == "csv":
            return self._csv(ci95)
        names, style = self._shown(), STYLES[fmt]
        headings = [*names, *self.columns, *(number.heading for number in self.numbers.values())]
        best = self._best() if style.bold else set()
        rows = [self._text_line(n, names, ci95, style, best) for n in range(len(self.lines))]
        table = _drawn(rows, [style.escape(heading) for heading in headings], style)
        note = [*self.full_note().splitlines(), *([BOLD_NOTE] if best else [])]
        return "\n".join([table, "", *(style.note.format(style.escape_note(n)) for n in note)])

    def full_note(self) -> str:
        """Return the note of text formats, including the labels that all lines share."""
        first = self.lines[0].labels
        shared = [f"{name} {first[name]}" for name in self.noted if self._is_constant(name)]
        return "\n".join([*([f"All lines: {', '.join(shared)}."] if shared else []), *self.note])

    def _best(self) -> set[tuple[int, str]]:
        """Return the cells (number of the line, column) that are the best of their group."""
        if self.group is None:
            return set()
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, line in enumerate(self.lines):
            groups[tuple(line.labels[name] for name in self.group)].append(index)
        best = set()
        for column in self.columns:
            for indices in groups.values():
                known = {i: self.lines[i] for i in indices if column in self.lines[i].values}
                if known:
                    means = {i: line.stats[column].mean for i, line in known.items()}
                    values = {i: line.values[column] for i, line in known.items()}
                    best |= {(i, column) for i in best_ones(means, values)}
        return best

    def _is_constant(self, name: str) -> bool:
        return len({line.labels[name] for line in self.lines}) == 1

    def _shown(self) -> list[str]:
        hidden = [name for name in (*self.dropped, *self.noted) if self._is_constant(name)]
        return [name for name in self.lines[0].labels if name not in hidden]

    def _text_line(
        self,
        index: int,
        names: Sequence[str],
        ci95: bool,
        style: Style,
        best: set[tuple[int, str]],
    ) -> list[str]:
        line = self.lines[index]
        starred = "dataset" if "dataset" in names else "trainer"
        labels = [line.labels[name] + "*" * (line.rounded and name == starred) for name in names]
        return [
            *map(style.escape, labels),
            *(
                _cell(line.stats.get(column), ci95, style, (index, column) in best)
                for column in self.columns
            ),
            *(
                number.text(line.numbers[name]) if name in line.numbers else "-"
                for name, number in self.numbers.items()
            ),
        ]

    def _csv(self, ci95: bool) -> str:
        from pandas import DataFrame

        spread_name = "ci95" if ci95 else "std"
        pairs = [f"{name}_{what}" for name in self.columns for what in ("mean", spread_name)]
        records: list[dict[str, Any]] = []
        for line in self.lines:
            means = {f"{name}_mean": stat.mean for name, stat in line.stats.items()}
            spreads = {f"{n}_{spread_name}": stat.spread(ci95) for n, stat in line.stats.items()}
            numbers = {name: f"{number:.10g}" for name, number in line.numbers.items()}
            rounded = "yes" if line.rounded else "no"
            records.append({**line.labels, **means, **spreads, "rounded": rounded, **numbers})
        columns = [*self.lines[0].labels, *pairs, "rounded", *self.numbers]
        table = DataFrame(records, columns=columns).astype(dict.fromkeys(pairs, float))
        return table.to_csv(index=False, float_format="%.4f", lineterminator="\n").rstrip("\n")


def _drawn(rows: Sequence[Sequence[str]], headings: Sequence[str], style: Style) -> str:
    """Return the table of texts in a format."""
    if style.tablefmt == BOOKTABS:
        from pandas import DataFrame

        table = DataFrame(rows, columns=list(headings))
        drawn = table.to_latex(index=False, escape=False, column_format="l" * len(headings))
        return str(drawn).rstrip("\n")
    return str(tabulate(rows, headings, tablefmt=style.tablefmt, disable_numparse=True))


def _cell(stat: Stat | None, ci95: bool, style: Style, is_best: bool) -> str:
    if stat is None:
        return "-"
    if stat.std is None:  # an average over datasets
        text = f"{stat.mean:.2f}"
    else:
        spread = stat.spread(ci95)
        if spread is None:
            text = style.alone.format(f"{stat.mean:.2f}")
        else:
            text = style.interval.format(f"{stat.mean:.2f}", f"{spread:.2f}")
    return style.bold.format(text) if is_best else text
