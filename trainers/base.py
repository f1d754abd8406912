"""What every prompt trainer shares: building, one step, schedule, checkpoints, resume, results.

A trainer on this base names its config node and builds its model; nothing else. It runs on the
unpatched real Dassl and on our fallback alike: it keeps its own learning-rate schedule and its
own checkpoints, the two places where Dassl breaks on recent PyTorch.

An epoch is a pure function of (seed, epoch, learnable state, optimiser state): all generators are
seeded anew before it. So a run that is interrupted anywhere and started again repeats the
unfinished epoch and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_optimizer
from torch import Tensor, nn
from torch.nn import functional as F

from dplq import checkpoint
from dplq.backbones import Backbone, load_backbone
from dplq.dassl_compat import describe_dassl
from dplq.errors import UserError
from dplq.precision import resolve_precision
from dplq.schedule import learning_rate

from .progress import ProgressLoader
from .report import EvaluationRecord, write_results

logger = logging.getLogger(__name__)
RESUME_FILE = "resume.safetensors"
PHASES = {"train": 0, "test": 1}  # each draws from its own random stream
MODEL_NAME = "prompt_learner"
CURE = "To begin a new run choose another --output-dir, or delete that folder."


class PromptTrainer(TrainerX):
    """Base of all trainers that learn prompts for a frozen CLIP.

    Subclasses set `node`, the config node below ``cfg.TRAINER`` that holds their keys, and
    implement `build_prompt_model`.
    """

    node = ""

    def __init__(self, cfg: Any) -> None:
        # Without a seed the run draws one, so that it can still be resumed exactly.
        self.run_seed = cfg.SEED if cfg.SEED >= 0 else random.SystemRandom().randrange(2**31)
        self.train_seconds, self.train_steps, self.tested_epoch = 0.0, 0, cfg.OPTIM.MAX_EPOCH
        print(describe_dassl())
        super().__init__(cfg)
        self.evaluator = EvaluationRecord(self.evaluator)

    @property
    def keys(self) -> Any:
        """This trainer's own config node."""
        return self.cfg.TRAINER[self.node]

    def check_cfg(self, cfg: Any) -> None:
        """Refuse values that no prompt trainer can work with.

        Raises:
            UserError: naming key, value and what is expected.
        """
        _require("OPTIM.MAX_EPOCH", cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.MAX_EPOCH >= 1, "at least 1")
        for part in ("TRAIN_X", "TEST"):
            size = cfg.DATALOADER[part].BATCH_SIZE
            _require(f"DATALOADER.{part}.BATCH_SIZE", size, size >= 1, "at least 1")
        for key in ("PIXEL_MEAN", "PIXEL_STD"):
            numbers = cfg.INPUT[key]
            _require(f"INPUT.{key}", numbers, len(numbers) == 3, "three numbers")
        final, split = cfg.TEST.FINAL_MODEL, cfg.TEST.SPLIT
        _require(
            "TEST.FINAL_MODEL", final, final in {"last_step", "best_val"}, "last_step or best_val"
        )
        _require("TEST.SPLIT", split, split in {"test", "val"}, "test or val")

    # --- building -----------------------------------------------------------------------------

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model: its `prompt_learner` is trained, the rest is frozen.

        The model maps images (B, 3, H, W) to logits (B, K) and has `save`, `load` and
        `noise_generator` as `dplq.model.QuaternionPromptCLIP` does.
        """
        raise NotImplementedError

    def build_data_loader(self) -> None:
        """Build Dassl's loaders; the training loader shows a progress bar."""
        super().build_data_loader()
        self.train_loader_x = ProgressLoader(self.train_loader_x, self.cfg.TRAIN.PRINT_FREQ)

    def build_model(self) -> None:
        """Load the frozen parts, build the learnable ones and their optimiser."""
        cfg = self.cfg
        self.precision = resolve_precision(self.keys.PREC, self.device)
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        clip = load_backbone(
            cfg.MODEL.BACKBONE.NAME,
            weights=cfg.MODEL.INIT_WEIGHTS,
            pretrained=cfg.MODEL.BACKBONE.PRETRAINED,
        )
        self._check_input(clip)
        classnames = list(self.dm.dataset.classnames)
        self.model = self.build_prompt_model(clip, classnames, self.run_seed).to(self.device)
        for frozen in (self.model.clip, self.model.domain):
            if frozen is not None:
                frozen.to(self.precision.frozen)
        self.model.noise_generator = torch.Generator(self.device)
        learner = self.model.prompt_learner
        self.learnable_parameters = sum(p.numel() for p in learner.parameters())
        print(
            f"Learnable parameters: {self.learnable_parameters:,} in {learner.__class__.__name__}"
        )
        try:
            self.optim = build_optimizer(learner, cfg.OPTIM)
        except ValueError as error:
            raise UserError(f"OPTIM.NAME is '{cfg.OPTIM.NAME}': {error}") from error
        for group in self.optim.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.scaler = self.precision.grad_scaler()
        # No Dassl scheduler: its warm-up raises TypeError on torch >= 2.7.
        self.register_model(MODEL_NAME, learner, self.optim, None)

    def _check_input(self, clip: Backbone) -> None:
        """Compare what the loaders deliver to what the backbone was trained on."""
        given, size = self.cfg.INPUT, clip.image_size
        if tuple(given.SIZE) != (size, size):
            raise UserError(
                f"INPUT.SIZE {tuple(given.SIZE)} does not fit {clip.spec['name']}, which "
                f'reads {size}x{size}: set INPUT.SIZE "({size}, {size})".'
            )
        for key, wanted in (("PIXEL_MEAN", clip.image_mean), ("PIXEL_STD", clip.image_std)):
            if not np.allclose(given[key], wanted, atol=1e-3):
                logger.warning(
                    "INPUT.%s is %s, but %s was trained with %s: set it in the config file.",
                    key,
                    list(given[key]),
                    clip.spec["name"],
                    list(wanted),
                )

    # --- one epoch ----------------------------------------------------------------------------

    def before_epoch(self) -> None:
        """Seed all generators for this epoch and set its learning rate."""
        super().before_epoch()
        self._seed("train", self.epoch)
        optim = self.cfg.OPTIM
        for group in self.optim.param_groups:
            group["lr"] = learning_rate(
                self.epoch,
                base_lr=group["initial_lr"],
                max_epoch=self.max_epoch,
                scheduler=optim.LR_SCHEDULER,
                stepsize=optim.STEPSIZE,
                gamma=optim.GAMMA,
                warmup_epoch=optim.WARMUP_EPOCH,
                warmup_type=optim.WARMUP_TYPE,
                warmup_cons_lr=optim.WARMUP_CONS_LR,
                warmup_min_lr=optim.WARMUP_MIN_LR,
                warmup_recount=optim.WARMUP_RECOUNT,
            )

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device."""
        return self.parse_batch_test(batch)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """One optimisation step; returns the numbers Dassl logs."""
        started = time.perf_counter()
        images, labels = self.parse_batch_train(batch)
        with self.precision.autocast():
            loss, logits = self.compute_loss(images, labels)
        self._step(loss)
        summary = {"loss": loss.item(), "acc": compute_accuracy(logits, labels)[0].item()}
        self.train_seconds += time.perf_counter() - started
        self.train_steps += 1
        return summary

    def compute_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and its logits (B, K); cross-entropy where nothing else is said."""
        logits = self.model(images)
        return F.cross_entropy(logits, labels), logits

    def _step(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss became {loss.item()} in epoch {self.epoch + 1}, batch "
                f"{self.batch_idx + 1}. Lower OPTIM.LR, or use TRAINER.{self.node}.PREC fp32. "
                "What was saved after the epochs before is kept."
            )
        self.optim.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optim.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()

    def _seed(self, phase: str, epoch: int) -> None:
        """Seed Python, NumPy and torch from (run seed, phase, epoch)."""
        words = [self.run_seed, PHASES[phase], epoch]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.model.noise_generator.manual_seed(seed)

    # --- checkpoints and resume ---------------------------------------------------------------

    def after_epoch(self) -> None:
        """Validate and save as Dassl does, then save what a resumed run needs."""
        super().after_epoch()
        momentum, rest = checkpoint.flatten_optimizer(self.optim)
        learner = self.model.prompt_learner.state_dict()
        tensors = {f"learner.{name}": tensor for name, tensor in learner.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in momentum.items()}
        header = {
            "epoch": self.epoch + 1,
            "run_seed": self.run_seed,
            "optimizer": rest,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "best_result": float(self.best_result) if math.isfinite(self.best_result) else None,
            "train_seconds": self.train_seconds,
            "train_steps": self.train_steps,
            "settings": self._resume_settings(),
        }
        checkpoint.save(self.model_dir(self.output_dir) / RESUME_FILE, tensors, header)

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on after the last finished epoch found in `directory`; return its number.

        Raises:
            UserError: what lies there was trained with other settings.
        """
        folder = self.model_dir(directory)
        path = folder / RESUME_FILE
        if not path.is_file():
            if self.cfg.RESUME:
                raise UserError(f"RESUME is {directory}, but there is no {path}.")
            print("No checkpoint found, train from scratch")
            return 0
        tensors, header = checkpoint.read(path)
        expected = {"settings": json.loads(json.dumps(self._resume_settings()))}
        checkpoint.check_header(header, expected, path, CURE)
        parts: dict[str, dict[str, Tensor]] = {"learner": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, rest = name.split(".", 1)
            parts[part][rest] = tensor
        checkpoint.load_strictly(self.model.prompt_learner, parts["learner"], path)
        checkpoint.restore_optimizer(self.optim, parts["optimizer"], header["optimizer"])
        if self.scaler and header["scaler"]:
            self.scaler.load_state_dict(header["scaler"])
        self.run_seed = header["run_seed"]
        self.train_seconds, self.train_steps = header["train_seconds"], header["train_steps"]
        if header["best_result"] is not None:
            self.best_result = header["best_result"]
        self._take_along(folder)
        print(f"Found checkpoint at {directory} (will resume after epoch {header['epoch']})")
        return header["epoch"]

    def _take_along(self, folder: Path) -> None:
        """Copy the checkpoints of a run that is continued in another folder."""
        here = self.model_dir(self.output_dir)
        if here.resolve() != folder.resolve():
            for path in folder.glob("model-*.safetensors"):
                checkpoint.write_atomically(here / path.name, path.read_bytes())

    def _resume_settings(self) -> dict[str, Any]:
        """What must be the same for a run to be continued rather than begun again."""
        cfg = self.cfg
        images = [(item.label, Path(item.impath).name) for item in self.dm.dataset.train_x]
        return {
            "model": {k: v for k, v in self.model.header().items() if k != "classnames"},
            "classnames": list(self.dm.dataset.classnames),
            "optim": dict(cfg.OPTIM),
            "input": dict(cfg.INPUT),
            "train_loader": dict(cfg.DATALOADER.TRAIN_X),
            "workers": cfg.DATALOADER.NUM_WORKERS,
            "images": hashlib.sha256(repr(images).encode()).hexdigest(),
            "final_model": cfg.TEST.FINAL_MODEL,
            "seed": cfg.SEED,
            "precision": self.precision.name,
        }

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
        names = [] if "best" in model_name else [f"model-{epoch + 1}"]
        names += ["model-best"] if is_best or "best" in model_name else []
        for name in names:
            path = self.model_dir(directory) / f"{name}.safetensors"
            extra = {"epoch": epoch + 1, "val_result": val_result}
            self.model.save(path, trainer=type(self).__name__, **extra)
            print(f"Checkpoint saved to {path}")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load learned prompts for the present classes.

        Args:
            directory: folder of a training run.
            epoch: which epoch; default: the best one if it was kept, else the last.

        Raises:
            UserError: no such checkpoint (those that exist are named), or it is another model's.
        """
        if not directory:
            print("load_model() is skipped as no pretrained model is given")
            return
        path = find_checkpoint(self.model_dir(directory), epoch)
        header = self.model.load(path)
        self.tested_epoch = header.get("epoch")
        print(f'Loaded {MODEL_NAME} from "{path}" (epoch = {header.get("epoch")})')

    def model_dir(self, directory: str) -> Path:
        """Where a run's checkpoints lie."""
        return Path(directory) / MODEL_NAME

    # --- testing ------------------------------------------------------------------------------

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does; the final test also writes ``results.json``.

        Args:
            split: "val" or "test"; None is the final test on ``cfg.TEST.SPLIT``.

        Returns:
            Accuracy in percent.
        """
        self._seed("test", 0)
        started = time.perf_counter()
        accuracy = super().test(split)
        if split is None and self.output_dir:
            write_results(self, seconds=time.perf_counter() - started)
        return accuracy

    def model_inference(self, input: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W)."""
        with self.precision.autocast():
            return self.model(input)


def _require(key: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise UserError(f"{key} is {value!r}; it must be {expected}.")


def find_checkpoint(folder: Path, epoch: int | None) -> Path:
    """The checkpoint of an epoch; None: the best one, else the last.

    Raises:
        UserError: it is not there; the message names what is.
    """
    numbered = {
        int(path.stem.rsplit("-", 1)[1]): path
        for path in folder.glob("model-*.safetensors")
        if path.stem.rsplit("-", 1)[1].isdigit()
    }
    best = folder / "model-best.safetensors"
    if epoch in numbered:
        return numbered[epoch]
    if epoch is None and best.is_file():
        return best
    if epoch is None and numbered:
        return numbered[max(numbered)]
    there = f"epochs {', '.join(map(str, sorted(numbered)))}" if numbered else "no checkpoint"
    wanted = "a checkpoint" if epoch is None else f"epoch {epoch}"
    raise UserError(
        f"{folder} does not hold {wanted}; there is {there}. "
        "Check --model-dir and --load-epoch (without --load-epoch the last one is used)."
    )
