"""The loop of ``dplq predict``: batches of images to their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dplq.images.batches import Refused
from dplq.images.summary import Summary
from dplq.methods.base import CLIPModel
from dplq.methods.prediction import ranking, score_files

from .accuracy import Accuracy
from .features import FeatureFile
from .inputs import ClassFinder, InputImage
from .output import Output
from .progress import Progress


class Problem(NamedTuple):
    """An image that cannot be read, and why."""

    path: str
    reason: str


def classify(
    model: CLIPModel,
    images: Sequence[InputImage],
    output: Output,
    features: FeatureFile | None,
    accuracy: Accuracy,
    progress: Progress,
    *,
    batch_size: int,
    workers: int,
) -> tuple[list[Problem], Summary]:
    """Write the predictions of images batch by batch, features first.

    Args:
        model: on its device, in eval mode.
        images: in the order of the output's rows.
        output: where predictions go.
        features: where adapted image features go; None: nowhere.
        accuracy: of these images, too.
        progress: is told of each batch.
        batch_size: images in a batch.
        workers: processes that read images; 0: this one.

    Returns:
        The images that cannot be read; what the others are, and what was done to them.
    """
    label_of, problems = ClassFinder(model.classnames), []
    summary = Summary()
    batches = score_files(
        model,
        [image.path for image in images],
        batch_size=batch_size,
        workers=workers,
        with_features=features is not None,
    )
    for scores in batches:
        done = [images[index] for index in scores.indices]
        if done:
            if features is not None and scores.features is not None:
                features.add(scores.features, [image.path for image in done])
            labels = list(map(label_of, done))
            output.add(done, labels, scores.logits)
            guesses = ranking(scores.logits, 1)[:, 0].tolist()
            accuracy.add([image.path for image in done], labels, guesses)
        problems += [_problem(images[refused.at].path, refused) for refused in scores.refused]
        progress.add(len(scores.indices) + len(scores.refused))
        summary.update(scores.facts)
    return problems, summary


def _problem(path: str, refused: Refused) -> Problem:
    return Problem(path, str(refused.error).removeprefix(path).strip())
