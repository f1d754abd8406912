"""Base trainer of a frozen CLIP: precision, tests, results."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone, load_backbone
from dplq.errors import UserError
from dplq.evaluation.metrics import check_metrics
from dplq.evaluation.predictions import EvaluationRecord
from dplq.host.checks import check_for_trainer
from dplq.host.dassl import describe_dassl, prepare_worker
from dplq.host.foreign_keys import warn_of_foreign_keys
from dplq.host.terminal import log_only, print_in_terminal
from dplq.host.weights import check_weights
from dplq.io.runs.files import MODEL_FOLDER
from dplq.io.runs.folder import RunFolder
from dplq.methods.base import CLIPModel
from dplq.methods.registry import check_registered
from dplq.training.distributed import (
    by_main,
    is_main,
    main_first,
    refuse_unconnected,
    world_size,
)
from dplq.training.frozen.features import FrozenFeatures
from dplq.training.frozen.loader import FrozenLoader
from dplq.training.loaders import AcceleratedLoader, accelerate_loader
from dplq.training.precision import Precision, resolve_precision
from dplq.training.seeding import PHASES, seed_all
from dplq.training.tracking.trackers import Trackers

from .checkpoints import CheckpointTrainer
from .environment import device_name
from .features import frozen_features
from .ownership import (
    accuracy_of_planned,
    claim_for_test,
    claim_for_training,
    report_finished,
)
from .parts import SharedRecord, shared_test
from .probabilities import check_temperature, keeps_probabilities, outcome_of, write_predictions
from .prompts import print_prompts
from .results import ENTRIES, write_results
from .texts import dataset_template
from .tracking import begin_tracking, track_results
from .train_images import refuse_test_only, report_imbalance
from .trained_on import write_train_images
from .validation import check_input, input_of

logger = logging.getLogger(__name__)


class FrozenTrainer(CheckpointTrainer):
    """Base of all trainers of a frozen CLIP, with or without gradient training.

    Subclasses set `model_class`, whose settings are their config keys; those that learn without
    gradients set `fixed_epochs` and implement Dassl's `run_epoch`.

    Attributes:
        model_class: the method's model.
        prec: default of the trainer's key PREC.
        node: config node below ``cfg.TRAINER``; `register_trainer` makes it of the trainer's name
            where it is not set. Subclasses registered otherwise share their parent's.
        fixed_epochs: None: OPTIM.MAX_EPOCH; 0: nothing to train, nothing to load.
        optimizes: whether it has an optimiser, that of ``cfg.OPTIM``.
    """

    model_class: ClassVar[type[CLIPModel]]
    prec: ClassVar[str] = "fp32"
    node: ClassVar[str] = ""
    fixed_epochs: ClassVar[int | None] = None
    optimizes: ClassVar[bool] = False

    model: CLIPModel
    precision: Precision
    max_epoch: int
    evaluator: Any
    results_file: Path | None = None  # of the training run, once it has begun
    run_folder: RunFolder | None = None  # once it is claimed
    frozen: FrozenFeatures | None = None  # once the model is built
    cached_batches = 0  # of the training: those whose frozen features were read from the cache
    train_accuracy: dict[str, float | None] | None = None  # start and end, once both are known
    trackers: Trackers | None = None  # of a training that has begun
    epoch_began = 0.0  # of `time.perf_counter`
    val_accuracy: float | None = None  # of this epoch, where it was validated
    validated_epochs = 0

    def __init__(self, cfg: Any) -> None:
        refuse_unconnected()
        if "DOMAIN" not in cfg:
            raise UserError(
                "The config lacks the keys of quaternion-prompt: call dplq.plugin.extend_cfg(cfg) "
                "in the train.py of this tree, where it extends the config for its own trainers."
            )
        self.check_cfg(cfg)  # Dassl does too, but only after the seed is used
        check_metrics(ENTRIES)
        check_weights(cfg, type(self))  # before the images are read
        # Without a seed the run draws one, so that it can still be resumed exactly.
        self.run_seed = cfg.SEED if cfg.SEED >= 0 else random.SystemRandom().randrange(2**31)
        self.train_seconds, self.train_steps = 0.0, 0
        print(describe_dassl())
        warn_of_foreign_keys(cfg, type(self))
        super().__init__(cfg)
        self.max_epoch = self.epochs()
        self.tested_epoch = self.max_epoch
        self.evaluator = SharedRecord(
            self.evaluator, self._advice_on_logits(), keeps_probabilities(cfg)
        )

    def epochs(self) -> int:
        """Return how many epochs a run has; the loaders are built."""
        return self.cfg.OPTIM.MAX_EPOCH if self.fixed_epochs is None else self.fixed_epochs

    def _advice_on_logits(self) -> str:
        """Return what to do about logits that are nan or infinite."""
        advice, model = [], " --eval-only --model-dir THIS_RUN" if self.max_epoch else ""
        if self.precision.name != "fp32":
            advice.append(
                f"Test in fp32:{model} --output-dir ANOTHER TRAINER.{self.node}.PREC fp32."
            )
        if self.fixed_epochs is None:
            advice.append(
                "Train with a lower OPTIM.LR: that is another run, so choose another --output-dir "
                "too, or add --overwrite."
            )
        last = "If they stay so, the weights of the CLIP or of the domain encoder are at fault."
        return " ".join([*advice, last])

    def build_data_loader(self) -> None:
        """Build Dassl's loaders, made quicker."""
        with log_only(), main_first():  # what is drawn or downloaded is there for the others
            super().build_data_loader()
        print_in_terminal(self._data_line())
        if len(names := self.dm.dataset.classnames) == 1:
            logger.warning("'%s' is the only class: every image counts as right.", names[0])
        check_temperature(self)
        for key in ("train_loader_x", "val_loader", "test_loader"):
            loader, train = getattr(self, key), key == "train_loader_x"
            if loader is not None:
                quick = accelerate_loader(
                    loader,
                    self.cfg,
                    device=self.device,
                    is_train=train,
                    prepare_worker=prepare_worker,
                )
                quick.divides_batches = train and self.optimizes and world_size() > 1
                setattr(self, key, self.with_frozen_features(quick, draws=train, tests=not train))

    def with_frozen_features(
        self, loader: AcceleratedLoader, *, draws: bool, tests: bool = False
    ) -> FrozenLoader:
        """Return a loader whose batches carry what is known of them.

        Args:
            loader: of images.
            draws: whether its transforms draw random numbers.
            tests: whether it is of val or test images: their domain features have a cache of their
                own, so that they are known where no image is needed.
        """
        return FrozenLoader(loader, lambda: self.frozen, draws=draws, only_without_images=tests)

    def passes(self) -> int:
        """Return how many passes over the training images a run makes."""
        return self.max_epoch

    @contextmanager
    def counting_cached(self) -> Iterator[None]:
        """Count the batches inside, which are trained on, whose features come from the cache."""
        frozen = self.frozen
        before = frozen.cached_batches if frozen else 0
        yield
        self.cached_batches += frozen.cached_batches - before if frozen else 0

    def _data_line(self) -> str:
        """Return what the log has of the data, on one line."""
        data, shots = self.dm.dataset, self.cfg.DATASET.NUM_SHOTS
        few = f" ({shots} a class)" if shots > 0 else ""
        return (
            f"{data.num_classes} classes; images: {len(data.train_x or ()):,} train{few}, "
            f"{len(data.val or ()):,} val, {len(data.test or ()):,} test"
        )

    @property
    def keys(self) -> Any:
        """Return this trainer's own config node."""
        return self.cfg.TRAINER[self.node]

    @property
    def learnable_parameters(self) -> int:
        """Return how many numbers are learned or fitted, heads included."""
        return sum(p.numel() for p in self.model.prompt_learner.parameters())

    def check_cfg(self, cfg: Any) -> None:
        """Refuse (UserError) values that no trainer can work with."""
        check_for_trainer(cfg, type(self))

    def model_settings(self) -> dict[str, Any]:
        """Return the model's settings: this trainer's config keys; no TEMPLATE: the dataset's."""
        fields = self.model_class.settings_class.config_fields()
        settings = {own.name: self.keys[own.name.upper()] for own in fields}
        if settings.get("template") == "":
            settings["template"] = dataset_template(self)
        return settings

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> CLIPModel:
        """Return the model: its `prompt_learner` is trained, the rest is frozen."""
        build: Any = self.model_class  # constructors differ in whether they have a domain encoder
        return build(clip, classnames, seed=seed, **self.model_settings())

    def build_model(self) -> None:
        """Build frozen and learnable parts; without Dassl's scheduler: it fails on torch >= 2.7.

        Raises:
            UserError: as the loaders and the model; a setting of the model is named by its key.
        """
        cfg, self.precision = self.cfg, resolve_precision(self.keys.PREC, self.device)
        print(f"Device: {device_name(self.device)}, precision {self.precision.name}")
        name, pretrained = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED
        print(f"Loading CLIP (backbone: {name})")
        clip = load_backbone(
            name,
            weights=cfg.MODEL.INIT_WEIGHTS,
            pretrained=pretrained,
            act=cfg.MODEL.BACKBONE.ACT,
        )
        check_input(cfg.INPUT, clip)
        names = list(self.dm.dataset.classnames)
        with self.own_keys():
            self.model = self.build_prompt_model(clip, names, self.run_seed).to(self.device)
        check_registered(type(self.model))  # before a training whose model nothing could open
        configure_model(self.model, self.precision, cfg.MODEL)
        self.model.input = input_of(cfg.INPUT, clip)
        self.model.noise_generator = torch.Generator(self.device)
        self.frozen = frozen_features(self)
        learner = self.model.prompt_learner
        print(f"Learnable parameters: {self.learnable_parameters:,} in {type(learner).__name__}")
        self.register_model(MODEL_FOLDER, learner, self.build_optimizer(learner), None)
        print_prompts(self.model)

    @contextmanager
    def own_keys(self) -> Iterator[None]:
        """Write the whole key into errors of the model that begin with the name of a setting."""
        try:
            yield
        except UserError as error:
            message = str(error)
            own = (one.name.upper() for one in self.model_class.settings_class.config_fields())
            if message.partition(" ")[0] not in own:
                raise
            raise UserError(f"TRAINER.{self.node}.{message}") from error

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer | None:
        """Return what trains the learner; None where no gradient does."""
        return None

    def before_train(self) -> None:
        """Resume as Dassl does; record which images the model is trained on."""
        if is_main():
            super().before_train()
        else:  # as Dassl, without its curves
            self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
            self.time_start = time.time()
        if self.max_epoch and self.output_dir:
            if is_main():
                write_train_images(self)
            self.recorded_in = self.output_dir
        by_main(self._begin_tracking)

    def before_epoch(self) -> None:
        """Begin the time of the epoch."""
        super().before_epoch()
        self.epoch_began, self.val_accuracy = time.perf_counter(), None

    def resume_model_if_exist(self, directory: str) -> int:
        """Return 0 finished epochs: without gradient training there is nothing to resume."""
        return 0

    def _seed(self, phase: str, epoch: int) -> None:
        """Seed all generators from (run seed, phase, epoch)."""
        seed = seed_all(self.run_seed, PHASES[phase], epoch)
        if self.model.noise_generator is not None:
            self.model.noise_generator.manual_seed(seed)

    def train(self) -> None:  # type: ignore[override]  # Dassl's signatures differ
        """Train as Dassl does, after a report on the images; skip a finished run.

        Raises:
            UserError: the dataset has test images only, and something is to be learned; or the
                output folder is in use, or another run's.
        """
        if self.fixed_epochs != 0:
            refuse_test_only(self)
        if self.output_dir:
            self.results_file = results = by_main(lambda: claim_for_training(self))
            if by_main(lambda: report_finished(results)):
                return
        if self.fixed_epochs != 0:
            self.report_training_images()
        elif self.cfg.TRAIN.CLASS_WEIGHTS:
            logger.warning(
                "TRAIN.CLASS_WEIGHTS is not used: %s learns nothing.", type(self).__name__
            )
        try:
            super().train()
        except BaseException:
            self.end_tracking(failed=True)
            raise
        finally:
            self.train_loader_x.close()
        self.end_tracking()

    def after_epoch(self) -> None:
        """Validate and save as Dassl does, where the folder is still this run's; track."""
        self.check_folder()
        super().after_epoch()
        values = self.epoch_values() | {"seconds": time.perf_counter() - self.epoch_began}
        if self.val_accuracy is not None:
            values["val_accuracy"] = self.val_accuracy
        if self.trackers is not None:
            self.trackers.log(self.epoch + 1, values)

    def epoch_values(self) -> dict[str, float]:
        """Return what is tracked of the epoch that was just finished, by name."""
        return {}

    def _begin_tracking(self) -> None:
        self.trackers = begin_tracking(self)

    def _begin_tracking_a_test(self) -> bool:
        """Begin to track a test of a model that was loaded; return whether it is one."""
        if self.trackers is not None or not self.cfg.TRAIN.TRACK:
            return False
        self.trackers = begin_tracking(self, trains=False)
        return True

    def end_tracking(self, *, failed: bool = False) -> None:
        """Close the trackers, if there are any."""
        trackers, self.trackers = self.trackers, None
        if trackers is not None:
            trackers.close(failed=failed)

    def check_folder(self) -> None:
        """Refuse (UserError) to write to a folder that was deleted or taken by another process."""
        if self.run_folder is not None:
            self.run_folder.check()

    def report_training_images(self) -> None:
        """Print what the user should know of the training images."""
        report_imbalance(self, by_batches=False)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, in percent.

        The final test also writes ``predictions.csv``, and last ``results.json``.

        Args:
            split: "val" or "test"; None is the final test on ``cfg.TEST.SPLIT``.
        """
        path = by_main(self._claim_results) if split is None and self.output_dir else None
        if path is not None and self.results_file is None:  # nothing was trained here
            there = by_main(lambda: accuracy_of_planned(path))
            if there is not None:
                return float(there)
        is_alone = bool(path) and by_main(self._begin_tracking_a_test)
        try:
            accuracy = self._tested(split, path)
        except BaseException:
            if is_alone:
                self.end_tracking(failed=True)
            raise
        if is_alone:
            self.end_tracking()
        return accuracy

    def _tested(self, split: str | None, path: Path | None) -> float:
        """Return the accuracy of a test in percent; write its files, the results to `path`."""
        self._seed("test", 0)
        started = time.perf_counter()
        with shared_test(self):
            accuracy = super().test(split)
        seconds = time.perf_counter() - started
        if not is_main():
            return accuracy
        outcome = outcome_of(self) if split is None else None
        if path:
            self.check_folder()
            write_predictions(outcome and outcome.table, path)
            write_results(self, path, seconds=seconds, metrics=outcome and outcome.metrics)
            if self.trackers is not None:
                track_results(self.trackers, path)
        if split == "val" and self.val_loader is not None:
            self.val_accuracy = accuracy
            self.validated_epochs += 1
        return accuracy

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device; the files are remembered."""
        record = getattr(self, "evaluator", None)
        if isinstance(record, EvaluationRecord):  # not yet while the model is built
            record.announce(batch.get("impath"))
        images, labels = super().parse_batch_test(batch)
        if self.frozen is not None:
            self.frozen.attach(batch, images)
        return images, labels

    def _claim_results(self) -> Path:
        """Return the file for the results of the final test."""
        if self.results_file is not None:
            return self.results_file
        if self.fixed_epochs == 0:  # nothing was trained elsewhere
            return claim_for_training(self)
        return claim_for_test(self)

    def model_inference(self, input: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W)."""
        with self.precision.autocast():
            return self.model(input)


def configure_model(model: CLIPModel, precision: Precision, given: Any) -> None:
    """Apply the precision and the keys of ``cfg.MODEL``.

    Args:
        model: on its device.
        precision: of the run.
        given: node with `TEXT_CHUNK`, `GRAD_CHECKPOINTING` and `COMPILE`.
    """
    for frozen in filter(None, (model.clip, model.domain)):
        frozen.to(precision.frozen)
    model.text_chunk = given.TEXT_CHUNK or "auto"
    model.clip.set_grad_checkpointing(given.GRAD_CHECKPOINTING)
    if given.COMPILE:
        model.compile(mode=given.COMPILE)
