"""Command line of exports: ``dplq export RUN --to model.onnx``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dplq.cli.model_options import add_model_options
from dplq.errors import UserError, shown
from dplq.io.exit_code import DONE, exit_code
from dplq.io.imports import import_modules

EXAMPLES = """examples:
    dplq export output/tissue --to tissue.onnx
    dplq export prompts.safetensors --to model.pt2 --classes "river,dense forest" --batch-size 1
    dplq export hf-hub:org/name --to model.onnx

An .onnx file runs in onnxruntime, a .pt2 file in PyTorch (torch.export.load), both without dplq.
Their input is a preprocessed batch (B, 3, H, W), their output the logits (B, K); class names and
preprocessing are in the file. Exit code 2: bad input, or a model that cannot be exported.
"""
ANY = "dynamic"


def run(args: argparse.Namespace) -> int:
    """Load the model, write the file, and say what is in it."""
    from dplq.cli.class_names import class_names
    from dplq.domain.arguments import one_or_several
    from dplq.io.validation.paths import user_path
    from dplq.methods.load import load

    import_modules(args.imports)
    path, batch_size = user_path(args.to, "--to"), _batch_size(args.batch_size)
    names = None if args.classes is None else class_names(args.classes)
    model = load(
        args.model,
        names,
        weights=args.weights,
        domain_weights=one_or_several(args.domain_weights),
        epoch=args.epoch,
    )
    model.export(path, batch_size=batch_size)
    size = model.clip.image_size
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {model.method}, "
        f"{len(model.classnames)} classes\n"
        f"  input   images ({batch_size or 'B'}, 3, {size}, {size})\n"
        f"  output  logits ({batch_size or 'B'}, {len(model.classnames)})\n"
        "Its logits equal the model's on random images."
    )
    return DONE


def _batch_size(text: str) -> int | None:
    if text == ANY:
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"--batch-size is {shown(text)}; it must be a number above 0, or {ANY}.")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq export",
        description="Write a model for a fixed set of classes as an ONNX or torch.export program.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="CHECKPOINT|RUN", help="a checkpoint, a run's folder, or hf-hub:org/name"
    )
    parser.add_argument("--to", required=True, metavar="FILE", help="model.onnx or model.pt2")
    add_model_options(parser)
    parser.add_argument(
        "--batch-size", default=ANY, metavar="N", help=f"images per call; default: {ANY}, any"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
