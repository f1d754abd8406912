"""Which lines of a table are means of the same runs, so that their best can be bold."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from dplq.errors import few
from dplq.results.rendering import Line
from dplq.results.runs import PAIRS

logger = logging.getLogger(__name__)

Shares = Mapping[str, Fraction]  # of what a mean is over: its weight, by name


def shares(names: Iterable[str]) -> dict[str, Fraction]:
    """Return the weight of each name in a mean over all of them."""
    counts = Counter(names)
    return {name: Fraction(count, counts.total()) for name, count in counts.items()}


def comparable(lines: Sequence[Line], group: Sequence[str]) -> list[Line]:
    """Return the lines, without the values of columns that are means of unequal runs.

    A column without values is never bold (`Line`). Unequal are means over other datasets, shots or
    output folders, or with other weights, or of other splits of the data; the seeds may differ, as
    the t-test pairs them. A warning names what the lines lack.

    Args:
        lines: of a table; what their means are over is in `Line.parts`.
        group: labels of the lines among which the best are bold.
    """
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        groups[tuple(line.labels[name] for name in group)].append(index)
    named = [name for name in group if len({line.labels[name] for line in lines}) > 1]
    found = list(lines)
    for indices in groups.values():
        unequal = set()
        for column in sorted({name for i in indices for name in lines[i].parts}):
            those = [lines[i] for i in indices if column in lines[i].parts]
            if not _are_equal([line.parts[column] for line in those]):
                unequal.add(column)
                _warn(column, those, named)
        if len({lines[i].splits for i in indices if lines[i].splits}) > 1:
            unequal = {name for i in indices for name in lines[i].values}
            _warn_of_splits([lines[i] for i in indices], named)
        unequal |= {name for name, halves in PAIRS.items() if unequal & set(halves)}
        for i in indices if unequal else ():
            values = {name: v for name, v in lines[i].values.items() if name not in unequal}
            found[i] = replace(lines[i], values=values)
    return found


def _are_equal(parts: Sequence[Mapping[Any, Shares]]) -> bool:
    """Return whether means by seed are over the same, of each seed that two have and of all."""
    by_seed: dict[Any, Shares] = {}
    for of_line in parts:
        for seed, found in of_line.items():
            if by_seed.setdefault(seed, found) != found:
                return False
    return all(_over_seeds(of_line) == _over_seeds(parts[0]) for of_line in parts)


def _over_seeds(parts: Mapping[Any, Shares]) -> Shares:
    total: dict[str, Fraction] = defaultdict(Fraction)
    for of_seed in parts.values():
        for name, share in of_seed.items():
            total[name] += share / len(parts)
    return total


def _warn_of_splits(lines: Sequence[Line], named: Sequence[str]) -> None:
    """Warn of lines of one group that are of other images; `named`: as for `_warn`."""
    logger.warning(
        "%s: the splits of the data differ, so these means are of other images, and none is bold",
        ", ".join(lines[0].labels[name] for name in named) or "all lines",
    )


def _warn(column: str, lines: Sequence[Line], named: Sequence[str]) -> None:
    """Warn of what lines of one group lack; `named`: the labels that tell groups apart."""
    where = ", ".join((*(lines[0].labels[name] for name in named), column))
    titles = [name for name in lines[0].labels if name not in ("runs", "seeds")]
    titles = [name for name in titles if len({line.labels[name] for line in lines}) > 1]
    known = [set().union(*of_line.values()) for of_line in (line.parts[column] for line in lines)]
    lacking = [
        f"{', '.join(line.labels[name] for name in titles)} lacks {few(sorted(missing))}"
        for line, own in zip(lines, known, strict=True)
        if (missing := set().union(*known) - own)
    ]
    logger.warning(
        "%s: these means are not of the same runs, so none is bold (%s)",
        *(where, few(lacking, separator="; ") or "their numbers, or their seeds, differ"),
    )
