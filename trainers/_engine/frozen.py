"""What every trainer shares: a frozen CLIP, its precision, tests and results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone, load_backbone
from dplq.host.config import own_keys
from dplq.host.dassl import describe_dassl
from dplq.training.loaders import accelerate_loader
from dplq.training.precision import resolve_precision
from dplq.training.seeding import PHASES, seed_all

from .checkpoints import MODEL_NAME, CheckpointTrainer
from .checks import check_input, check_values
from .report import EvaluationRecord, write_results
from .running import set_up


class FrozenTrainer(CheckpointTrainer):
    """Base of all trainers of a frozen CLIP, with or without gradient training.

    Subclasses set `node`, the config node below ``cfg.TRAINER`` with their keys, and `model_class`,
    made with these keys in lower case, or implement `build_prompt_model`. Those that learn without
    gradients set `fixed_epochs` and implement Dassl's `run_epoch`.
    """

    node = ""
    model_class: Callable[..., nn.Module]
    fixed_epochs: int | None = None  # None: OPTIM.MAX_EPOCH; 0: nothing to train, nothing to load

    def __init__(self, cfg: Any) -> None:
        # Without a seed the run draws one, so that it can still be resumed exactly.
        self.run_seed = cfg.SEED if cfg.SEED >= 0 else random.SystemRandom().randrange(2**31)
        self.train_seconds, self.train_steps = 0.0, 0
        print(describe_dassl())
        super().__init__(cfg)
        self.max_epoch = self.max_epoch if self.fixed_epochs is None else self.fixed_epochs
        self.tested_epoch = self.max_epoch
        self.evaluator = EvaluationRecord(self.evaluator)

    def build_data_loader(self) -> None:
        """Build Dassl's loaders, made quicker."""
        super().build_data_loader()
        for key in ("train_loader_x", "val_loader", "test_loader"):
            loader, train = getattr(self, key), key == "train_loader_x"
            if loader is not None:
                setattr(
                    self,
                    key,
                    accelerate_loader(loader, self.cfg, device=self.device, is_train=train),
                )

    @property
    def keys(self) -> Any:
        """This trainer's own config node."""
        return self.cfg.TRAINER[self.node]

    def check_cfg(self, cfg: Any) -> None:
        """Refuse values that no trainer can work with (UserError)."""
        check_values(cfg)

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model: its `prompt_learner` is trained, the rest is frozen.

        The model maps images (B, 3, H, W) to logits (B, K) and has `clip`, `domain` (or None),
        `header`, `save`, `load` and `noise_generator`, as `dplq.methods.base.PromptedCLIP` does.
        """
        settings = {name.lower(): self.keys[name] for name in own_keys(self.node) if name != "PREC"}
        return self.model_class(clip, classnames, seed=seed, **settings)

    def build_model(self) -> None:
        """Build frozen and learnable parts; without Dassl's scheduler: it fails on torch >= 2.7."""
        cfg, self.precision = self.cfg, resolve_precision(self.keys.PREC, self.device)
        name, pretrained = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED
        print(f"Loading CLIP (backbone: {name})")
        clip = load_backbone(name, weights=cfg.MODEL.INIT_WEIGHTS, pretrained=pretrained)
        check_input(cfg.INPUT, clip)
        names = list(self.dm.dataset.classnames)
        self.model = self.build_prompt_model(clip, names, self.run_seed).to(self.device)
        set_up(self.model, self.precision, cfg.MODEL)
        self.model.noise_generator = torch.Generator(self.device)
        learner = self.model.prompt_learner
        self.learnable_parameters = count = sum(p.numel() for p in learner.parameters())
        print(f"Learnable parameters: {count:,} in {type(learner).__name__}")
        self.register_model(MODEL_NAME, learner, self.build_optimizer(learner), None)

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer | None:
        """What trains the learner; None where no gradient does."""
        return None

    def resume_model_if_exist(self, directory: str) -> int:
        """Without gradient training there is nothing to go on from: 0 epochs are done."""
        return 0

    def _seed(self, phase: str, epoch: int) -> None:
        """Seed all generators from (run seed, phase, epoch)."""
        self.model.noise_generator.manual_seed(seed_all(self.run_seed, PHASES[phase], epoch))

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate as Dassl does, in percent; the final test also writes ``results.json``.

        Args:
            split: "val" or "test"; None is the final test on ``cfg.TEST.SPLIT``.
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
