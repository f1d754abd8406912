"""Checkpoints of a trainer: where they are, writing, loading."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dassl.engine import TrainerX

from dplq.errors import UserError, few
from dplq.images.model_input import RECORDED, ModelInput
from dplq.images.settings import changed_settings
from dplq.io.runs.files import MODEL_FOLDER
from dplq.io.runs.folder import NO_MODEL
from dplq.io.spelling import spelling
from dplq.methods.load import checkpoint_in, load_public
from dplq.training.distributed import is_main, wait_for_all

from .trained_on import check_tested_classes, check_tested_images, split_hash

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What `load_model` was given, the file that it has loaded, its classes; none at first."""

    directory: str
    epoch: int | None
    path: Path | None
    classnames: list[str] | None  # public checkpoints do not have them


class CheckpointTrainer(TrainerX):
    """Dassl's trainer with this project's checkpoints: safetensors, which real Dassl cannot do.

    `self.model` has `save` and `load` as `dplq.methods.base.CLIPModel` does.
    """

    tested_epoch: int | None = None  # the epoch whose weights are in the model at a test
    recorded_in: str = ""  # folder to which this very run wrote its training images
    loaded: Loaded = Loaded("", None, None, None)

    def model_dir(self, directory: str) -> Path:
        """Return the folder of a run's checkpoints."""
        return Path(directory) / MODEL_FOLDER

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write the learnable state to ``DIRECTORY/prompt_learner/model-<epoch>.safetensors``.

        Args:
            epoch: counted from 0; the file name counts from 1, as Dassl's do.
            directory: the run's folder.
            is_best: write ``model-best.safetensors`` too.
            val_result: validation accuracy, kept in the header.
            model_name: a name that contains "best" writes only the best model.
        """
        if not is_main():
            return
        names = [] if "best" in model_name else [f"model-{epoch + 1}"]
        names += ["model-best"] if is_best or "best" in model_name else []
        for name in names:
            path = self.model_dir(directory) / f"{name}.safetensors"
            extra: dict[str, Any] = {
                "epoch": epoch + 1,
                "val_result": val_result,
                "split": split_hash(self),
                "reading": changed_settings(self.cfg.INPUT),
            }
            self.model.save(path, trainer=type(self).__name__, **extra)
            print(f"Checkpoint saved to {path}")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load what was learned, for the present classes.

        Args:
            directory: folder of a training run.
            epoch: which epoch; default: the best one if it was kept, else the last.

        Raises:
            UserError: no directory, no such checkpoint (those that exist are named), it is another
                model's, or images that it was trained on would be tested, or such classes as new
                ones.
        """
        if not directory:
            raise UserError(NO_MODEL)
        wait_for_all()  # the first may have just written it
        check_tested_images(self, directory)
        formats = filter(None, [self.model.public])
        now = self.model.input
        path, is_public = checkpoint_in(Path(directory), epoch, formats)
        header = load_public(self.model, path) if is_public else self.model.load(path)
        check_tested_classes(self, header, directory)
        if "reading" in header:  # not in checkpoints of earlier versions and other projects
            warn_of_reading(header["reading"], self.cfg.INPUT)
        if not is_public:  # whose preprocessing is not recorded
            warn_of_input(self.model.input, now, header.get("input") or {})
        self.model.input = now  # what the loaders of this run do
        self.tested_epoch = header.get("epoch")
        self.loaded = Loaded(directory, epoch, path, header.get("classnames"))
        warn_of_lacking_classes(header.get("classnames") or (), self.model.classnames)
        print(f'Loaded {MODEL_FOLDER} from "{path}" (epoch = {header.get("epoch")})')


def warn_of_lacking_classes(trained: Sequence[str], tested: Sequence[str]) -> None:
    """Warn where a test is mostly of trained classes, and lacks some of them: another site's.

    Args:
        trained: class names of the training.
        tested: those that are told apart in the test.
    """
    known, here = set(map(spelling, trained)), set(map(spelling, tested))
    lacking = [name for name in trained if spelling(name) not in here]
    unknown = [name for name in tested if spelling(name) not in known]
    if not lacking or 2 * len(unknown) >= len(tested):
        return
    logger.warning(
        "The model was trained on %d classes and is tested among the %d that have images here, "
        "not %s: that is easier. `dplq predict` with a table tests among all of them.",
        *(len(trained), len(tested), few(lacking)),
    )
    if unknown:
        logger.warning("Tested, too, though the model was not trained on it: %s.", few(unknown))


def warn_of_reading(then: dict[str, Any], given: Any) -> None:
    """Warn if images were read otherwise in training: another window gives another image.

    Args:
        then: the reader's settings in training that were not the defaults.
        given: `cfg.INPUT` of the test.
    """
    now = json.loads(json.dumps(changed_settings(given)))
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key) and key != "MAX_PIXELS":
            logger.warning(
                "INPUT.%s is %s, but the model was trained with %s: it sees other images",
                key,
                now.get(key, "not set"),
                then.get(key, "the default"),
            )


def warn_of_input(then: ModelInput, now: ModelInput, recorded: Mapping[str, Any]) -> None:
    """Warn if images are preprocessed otherwise than in training.

    Args:
        then: what the checkpoint says.
        now: of this run.
        recorded: entry of the header. What it lacks is the backbone's own, or is of a version that
            recorded nothing.
    """
    keys = {"interpolation": "INTERPOLATION", "mean": "PIXEL_MEAN", "std": "PIXEL_STD"}
    for name in RECORDED:
        trained, given = getattr(then, name), getattr(now, name)
        if trained == given:
            continue
        if name in keys:
            what = f"INPUT.{keys[name]} is {given}"
        else:
            what = f"instance_norm is {'' if given else 'not '}in INPUT.TRANSFORMS"
        if name in recorded:
            said = f"but the model was trained with {trained}: it sees other images"
        else:
            said = (
                f"but the checkpoint records nothing but the backbone's own, {trained}: unless it "
                "is of a version that did not record this, the model sees other images"
            )
        logger.warning("%s, %s", what, said)
    if then.resize_mode != now.resize_mode:
        logger.warning(
            "Images are resized by %s, but the model was trained with %s: it sees other images",
            *(now.resize_mode, then.resize_mode),
        )
