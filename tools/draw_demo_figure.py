"""Draw the README's figure of the demo: ``python -m tools.draw_demo_figure [--out FILE]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dplq.demo.render import AERIAL_CLASSES, TISSUE_CLASSES, render

CLASSES = AERIAL_CLASSES[::2] + TISSUE_CLASSES[::4]
SEED = 2_000_000  # beyond the pictures of training, tests and datasets


def draw_figure(path: Path, size: int = 64) -> None:
    """Write the figure: a column per class, three general-look and two domain-look rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [("general", SEED + number) for number in range(3)]
    rows += [("domain", SEED + number) for number in range(2)]
    figure, axes = pyplot.subplots(
        len(rows), len(CLASSES), figsize=(len(CLASSES), len(rows) + 0.3), squeeze=False
    )
    for line, (look, seed) in zip(axes, rows, strict=True):
        for axis, name in zip(line, CLASSES, strict=True):
            axis.imshow(render(name, look, seed, size).image)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(look, fontsize=8)
    for axis, name in zip(axes[0], CLASSES, strict=True):
        axis.set_title(name.replace(" ", "\n"), fontsize=7)
    figure.subplots_adjust(0.03, 0.01, 0.995, 0.91, wspace=0.04, hspace=0.04)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 85})
    pyplot.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/demo.jpg"))
    draw_figure(parser.parse_args().out)


if __name__ == "__main__":
    main()
