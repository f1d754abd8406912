"""Command line of predictions: ``dplq predict MODEL IMAGES...``."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dplq.cli.model_options import add_model_options, whole_number
from dplq.errors import UserError, few, printable
from dplq.io.exit_code import DONE, PROBLEMS, exit_code
from dplq.io.imports import import_modules
from dplq.io.validation.paths import user_path

if TYPE_CHECKING:
    from dplq.cli.prediction.accuracy import Accuracy
    from dplq.cli.prediction.inputs import InputImage, Inputs
    from dplq.cli.prediction.loop import Problem
    from dplq.cli.prediction.output import Output
    from dplq.images.summary import Summary
    from dplq.methods.base import CLIPModel

EXAMPLES = """examples:
    dplq predict output/my_run scans/                      # a table on the terminal
    dplq predict output/my_run scans/ --out scans.csv      # all probabilities; a stop is no loss
    dplq predict prompts.safetensors 'new/*.png' --topk 3 --out new.csv
    dplq predict output/my_run labels.csv --out test.csv   # labels are copied; accuracy
    dplq predict output/my_run scans/ --classes "cyst,stone,normal kidney"
    dplq predict output/my_run scans/ --out x.csv --features x.safetensors
    dplq predict output/my_run t.csv DATASET.COLUMNS.PATH file INPUT.WINDOW "[0, 4095]"

Exit code: 0 done, 1 some images cannot be read, 2 bad input, 130 interrupted."""

FLAGS = {  # by what messages of the library call them
    "domain_weights=...": "--domain-weights PATH",
    "weights=...": "--weights PATH",
    "clip=load_backbone(...)": "--backbone NAME",
    "classnames=[...]": "--classes",
    "epoch=": "--epoch ",
}


@dataclass(frozen=True)
class Request:
    """What is to be done.

    Attributes:
        args: of the command line.
        model: on its device.
        checkpoint: the file that it is from.
        inputs: the images.
        out: the CSV file; None: the terminal.
        features: the file of features; None: none.
        reading: settings of the image reader that the command has other than the model.
        accuracy: counts what is written.
    """

    args: argparse.Namespace
    model: CLIPModel
    checkpoint: Path
    inputs: Inputs
    out: Path | None
    features: Path | None
    reading: dict[str, Any]
    accuracy: Accuracy


def run(args: argparse.Namespace) -> int:
    """Classify the images; return the exit code."""
    from dplq.cli.class_names import class_names
    from dplq.cli.prediction.accuracy import accuracy_of
    from dplq.cli.prediction.inputs import find_inputs
    from dplq.cli.prediction.options import parse_options, split_words
    from dplq.images.settings import DEFAULTS, changed_of

    import_modules(args.imports)
    words, pairs = split_words(args.images)
    out = user_path(args.out, "--out") if args.out else None
    features = user_path(args.features, "--features") if args.features else None
    if features and not out:
        raise UserError("--features needs --out: its rows are those of the CSV file.")
    classes = None if args.classes is None else class_names(args.classes)
    inputs = find_inputs(words, parse_options(pairs, DEFAULTS).columns)
    model, checkpoint = _load(args, classes)
    own = model.input.reading
    model.input = replace(model.input, reading=parse_options(pairs, own).reading)
    reading = _as_json(changed_of(model.input.reading, own))
    if args.topk is not None and args.topk > len(model.classnames):
        raise UserError(f"--topk is {args.topk}, but there are {len(model.classnames)} classes.")
    request = Request(
        args, model, checkpoint, inputs, out, features, reading, accuracy_of(checkpoint)
    )
    _protect(request)
    _report(inputs)
    _report_temperature(request)
    problems, summary = _predict(request)
    _report_images(request, summary)
    _report_results(request)
    _report_problems(problems)
    return PROBLEMS if problems else DONE


def _load(args: argparse.Namespace, classes: list[str] | None) -> tuple[CLIPModel, Path]:
    """Return the model on its device, and the file that it is from."""
    import torch

    from dplq.clip.backbone import load_backbone
    from dplq.domain.arguments import one_or_several
    from dplq.methods.load import find_file, load

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"--device {device} cannot be used here: give cpu, cuda, ...") from error
    try:
        path = find_file(args.model, args.epoch)
        clip = load_backbone(args.backbone, weights=args.weights) if args.backbone else None
        model = load(
            path,
            classes,
            clip=clip,
            weights="" if clip else args.weights,
            domain_weights=one_or_several(args.domain_weights),
        )
    except UserError as error:
        raise UserError(*map(_with_flags, error.args)) from error
    return model.to(device), path


def _with_flags(text: str) -> str:
    """Return a message of the library with the command's flags in place of its arguments."""
    for argument, flag in FLAGS.items():
        text = text.replace(argument, flag)
    return text


def _protect(request: Request) -> None:
    """Refuse to write to a file that is read, or the run's."""
    from dplq.cli.prediction.protection import protect, run_of

    args = request.args
    classes = args.classes or ""
    given = {
        "the checkpoint": str(request.checkpoint),
        "the file of --classes": classes[1:] if classes.startswith("@") else "",
        "the file of --weights": args.weights,
        "the file of --domain-weights": args.domain_weights,
    }
    read = {what: Path(path).expanduser() for what, path in given.items() if path}
    run = run_of(args.model, request.checkpoint)
    protect(request.out, request.features, request.inputs, read, run)


def _report(inputs: Inputs) -> None:
    """Print what the user should know of the images."""
    for note in inputs.notes:
        print(note, file=sys.stderr)
    if inputs.repeated:
        print(
            f"{_count_of(len(inputs.repeated), 'is')} given more than once, and done once: "
            f"{few(map(printable, inputs.repeated), 3)}",
            file=sys.stderr,
        )


def _report_temperature(request: Request) -> None:
    """Print that the run's own probabilities are scaled, where they are."""
    from dplq.cli.prediction.protection import run_of
    from dplq.io.runs.files import PREDICTIONS_FILE, RESULTS_FILE
    from dplq.io.runs.results import read_results

    run = run_of(request.args.model, request.checkpoint)
    if run is None or not (run / RESULTS_FILE).is_file():
        return
    try:
        metrics = read_results(run / RESULTS_FILE).metrics or {}
        value = float(metrics["temperature"]["value"])
    except (UserError, KeyError, TypeError, ValueError):  # none, or not for this command to judge
        return
    print(
        f"The probabilities in {run / PREDICTIONS_FILE} are scaled by the temperature {value:.3f} "
        "(TEST.TEMPERATURE); those of this command are not.",
        file=sys.stderr,
    )


def _predict(request: Request) -> tuple[list[Problem], Summary]:
    """Write the predictions; return the images that cannot be read, and what the others are."""
    from dplq.cli.prediction.features import FeatureFile, check_features
    from dplq.cli.prediction.identity import name_from, writing_alone
    from dplq.cli.prediction.loop import classify
    from dplq.cli.prediction.progress import Progress
    from dplq.io.files import file_digest
    from dplq.methods.prediction import evaluating

    args, model, out, features = request.args, request.model, request.out, request.features
    digest = file_digest(request.checkpoint)
    with contextlib.ExitStack() as stack:
        if out is not None:
            stack.enter_context(writing_alone(out))
        about = {"checkpoint": digest, "method": model.method, "adapted": "true"}
        if out is not None and features:
            about["output"] = name_from(features, out)
            if not args.overwrite:  # before anything is written
                check_features(features, about)
        written = out.stat().st_mtime if out is not None and out.is_file() else 0.0
        output, folder = _output(request, digest)
        stack.callback(output.close)
        todo = request.inputs.images
        if out is not None and output.done:
            todo = _continued(request, out, output, folder, written)
        stack.enter_context(evaluating(model))
        rows = None
        if features:
            width, done = _feature_width(model), output.done
            rows = FeatureFile(features, width, done, about, args.overwrite)
            stack.enter_context(rows)
        has_bar = sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())
        progress = Progress(len(todo), quiet=args.quiet, has_bar=has_bar)
        stack.callback(progress.close)
        problems, summary = classify(
            *(model, todo, output, rows, request.accuracy, progress),
            batch_size=args.batch_size,
            workers=args.workers,
        )
        if rows is not None:
            rows.finish()
    if todo:
        progress.report()
    return problems, summary


def _continued(
    request: Request, out: Path, output: Output, folder: str, written: float
) -> list[InputImage]:
    """Count the rows that an output file has; return the images that it does not have."""
    from dplq.cli.prediction.continuing import remaining
    from dplq.cli.prediction.inputs import ClassFinder

    images, label_of = request.inputs.images, ClassFinder(request.model.classnames)
    todo = remaining(images, output, label_of, out=out, folder=folder, written=written)
    there = [os.path.join(folder, path) for path in output.done]
    labels, predictions = zip(*((one.label, one.prediction) for one in output.known), strict=True)
    request.accuracy.add(there, labels, predictions)
    here = len(images) - len(todo)
    left = f"{len(todo):,} {'is' if len(todo) == 1 else 'are'} left"
    print(f"{out} is continued: {_count_of(here, 'is')} done, {left}.")
    return todo


def _output(request: Request, digest: str) -> tuple[Output, str]:
    """Return where the predictions go, and the folder that relative paths there are from.

    A file of another model is refused.

    Args:
        request: what is to be done.
        digest: SHA-256 of the checkpoint.
    """
    from dplq.cli.prediction.identity import Identity, claim, name_from
    from dplq.cli.prediction.output import AllClasses, Printed, TopClasses
    from dplq.evaluation.prediction_rows import distinct_names

    args, model, out = request.args, request.model, request.out
    classes = distinct_names(model.classnames)
    if out is None:
        return Printed(request.inputs.images, classes, args.topk or 1), ""
    own = Identity(
        digest,
        model.method,
        classes,
        args.topk,
        name_from(out, request.features) if request.features else "",
        backbone=_as_json(model.clip.spec.identity()),
        domain=_as_json(model.domain.spec.identity()) if model.domain is not None else None,
        reading=request.reading,
        folder=name_from(out, Path.cwd()),
    )
    folder = claim(out, own, args.overwrite)
    if args.topk is None:
        return AllClasses(out, classes), folder
    return TopClasses(out, classes, args.topk), folder


def _as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record has as it is read back: tuples are lists there."""
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def _feature_width(model: CLIPModel) -> int:
    """Return the width of a model's adapted image features."""
    import torch

    size, device = model.clip.image_size, model.clip.logit_scale.device
    return model.image_features(torch.zeros(1, 3, size, size, device=device)).shape[1]


def _report_images(request: Request, summary: Summary) -> None:
    """Print what was done to images, where it was more than to decode them."""
    if summary.steps or summary.most_frames > 1:
        print(f"images: {summary.in_words()}", file=sys.stderr)
    if problem := summary.range_warning(request.model.input.reading):
        print(f"warning: {problem}", file=sys.stderr)


def _report_results(request: Request) -> None:
    """Print the accuracy where labels are known, and where the files are."""
    from dplq.cli.prediction.inputs import unused_labels

    images, out = request.inputs.images, request.out
    unknown, ambiguous = unused_labels(images, request.model.classnames)
    for labels, why in ((unknown, "is no class"), (ambiguous, "may be several classes")):
        if labels:
            print(
                f"{_count_of(sum(labels.values()), 'has')} a label that {why} of the model; it is "
                f"left empty: {few(map(printable, labels))}",
                file=sys.stderr,
            )
    for line in request.accuracy.lines():  # apart from the table, if that is on stdout
        print(line, file=sys.stderr if out is None else sys.stdout)
    if out is not None:
        print(f"written to {out}" + (f" and {request.features}" if request.features else ""))


def _report_problems(problems: Sequence[Problem]) -> None:
    """Print which images cannot be read, and why."""
    if problems:
        print(f"{_count_of(len(problems))} cannot be read:", file=sys.stderr)
    for problem in problems:
        print(f"  {printable(problem.path)}: {problem.reason}", file=sys.stderr)


def _count_of(count: int, verb: str = "") -> str:
    """Return a number of images, and a verb in its singular or plural."""
    if count == 1:
        return f"1 image {verb}".rstrip()
    return f"{count:,} images { ({'is': 'are', 'has': 'have'}.get(verb, verb)) }".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq predict",
        description="Classify images with a trained model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a checkpoint, or the folder of a run (best, else last)")
    add(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="image files, folders with all below them, quoted patterns, CSV tables; then KEY "
        "VALUE pairs of config keys INPUT.* and DATASET.COLUMNS.* (docs/predict.md)",
    )
    add_model_options(parser)
    add("--topk", metavar="N", type=_positive, help="the N most probable classes, not all")
    add("--out", metavar="FILE", help="CSV file to write, or to continue; without it a table")
    add("--features", metavar="FILE", help="safetensors file for the adapted image features")
    add("--overwrite", action="store_true", help="begin --out and --features anew")
    add("--batch-size", metavar="N", type=_positive, default=64, help="images at once (64)")
    add(
        "--workers",
        metavar="N",
        type=whole_number,
        default=0,
        help="processes that read images (0)",
    )
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (a GPU where there is one)")
    add("--backbone", metavar="NAME", default="", help="CLIP of an original's public checkpoint")
    add("--quiet", action="store_true", help="no progress")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "whole number from 1"  # in messages


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_intermixed_args(argv)  # pairs may follow flags
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
