"""Which switch of PyTorch makes fp32 logits on a GPU differ from the plain model's.

    python benchmarks/step_switches.py [--device cuda]

Each combination of TF32 and attention kernels: the largest difference between ours and the plain
model, and of both from our model in double precision, over the largest logit.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.step_checks import relative
from benchmarks.step_sides import build_ours, build_side, class_names, inputs

ATTENTION = {"any": None, "math": SDPBackend.MATH, "efficient": SDPBackend.EFFICIENT_ATTENTION}
COLUMNS = (
    "TF32 convolutions",
    "TF32 products",
    "attention",
    "ours/plain",
    "ours/fp64",
    "plain/fp64",
)


@contextmanager
def tf32(convolutions: bool, products: bool) -> Iterator[None]:
    """Allow TF32 for convolutions and for matrix products, or not, in this context."""
    backends = torch.backends
    before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = convolutions, products
    try:
        yield
    finally:
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = before


@torch.no_grad()
def compare(device: torch.device, tiny: bool, batch: int, classes: int) -> list[tuple]:
    """Return a row of `COLUMNS` for each combination that this device has."""
    model = build_ours(tiny, device, "auto")
    names = class_names(classes)
    ours, plain = build_side("ours", model), build_side("plain", model)
    for side in (ours, plain):
        side.set_classes(names)
        side.eval()
    images, _ = inputs(model, batch, classes)
    double = copy.deepcopy(model).double()
    double.set_classnames(names)
    exact = double.eval()(images.double())
    on_gpu = device.type == "cuda"
    rows = []
    for convolutions, products, name in product(
        (True, False) if on_gpu else (False,), (True, False) if on_gpu else (False,), ATTENTION
    ):
        if name == "efficient" and not on_gpu:
            continue
        backend = ATTENTION[name]
        attention = nullcontext() if backend is None else sdpa_kernel(backend)
        with tf32(convolutions, products), attention:
            a, b = ours(images), plain(images)
        wrong = [relative(a, b), *(relative(x.double(), exact) for x in (a, b))]
        rows.append((convolutions, products, name, *(f"{value:.1e}" for value in wrong)))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--classes", type=int, default=23)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tiny", action="store_true", help="tiny models, for a quick test")
    args = parser.parse_args(argv)
    rows = compare(torch.device(args.device), args.tiny, args.batch, args.classes)
    print(tabulate(rows, COLUMNS, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
