"""Comparison of our trainers with the originals: same CLIP, learnable state and batch.

`tests/trainers/test_peers.py` compares on a tiny CLIP, `benchmarks/peer_equality.py` at ViT-B/16.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from dassl.config import get_cfg_default
from torch import Tensor

from dplq.clip.backbone import Backbone, load_backbone
from dplq.host.config import extend_cfg
from tests.peers import peer
from tests.references.authors_release import openai_state_from_open_clip
from tests.references.run_original import Run, bare_trainer
from tests.tiny import tiny_clip_config, write_clip_dir

CLASSNAMES = ["river", "parking_lot", "Dense Residential Area", "storage tank", "a"]
COOP, MAPLE = "CoOp", "multimodal-prompt-learning"
IMAGES, SEED, LEARNING_RATE = 3, 1, 0.1
# Adds a warm-up scheduler to checkpoints, as the authors' settings do; the rate stays the same.
WARM_UP = {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": LEARNING_RATE}
JITTER = 0.02  # so that no bias of the random CLIP is 0 and no LayerNorm weight 1


@dataclass(frozen=True)
class Case:
    """One trainer with one setting.

    Attributes:
        tree: repository of the original.
        module: in its folder `trainers`.
        trainer: its name there, and ours.
        keys: below its config node. "some": fewer layers than the towers have, "all": all.
        learner_only: the original registers (and saves) its prompt learner, not the whole model.
        config: the nodes and keys that the original has in place of ours.
        dataset: name of the dataset, which decides an original's hand-written text.
        loss: keys of the original's node LOSS.
        dassl: the toolbox that the original needs.
        original: the trainer's name there, if another.
        classnames: of the run.
        texts: in the tree, what our key TEXTS names.
        home: our module, if not called as the trainer.
    """

    tree: str
    module: str
    trainer: str
    keys: dict[str, Any]
    learner_only: bool = False
    config: dict[str, dict[str, Any]] = field(default_factory=dict)
    dataset: str = ""
    loss: dict[str, Any] = field(default_factory=dict)
    dassl: str = "Dassl.pytorch"
    original: str = ""
    classnames: Sequence[str] = tuple(CLASSNAMES)
    texts: str = ""
    home: str = ""

    @property
    def node(self) -> str:
        """The config node."""
        return self.trainer.upper()

    def ours(self) -> type:
        """Our trainer of that name."""
        home = self.home or self.trainer.lower()
        return getattr(importlib.import_module(f"dplq.trainers.{home}"), self.trainer)


def _coop(tree: str = COOP, **keys: Any) -> Case:
    keys = {"N_CTX": 5, "CTX_INIT": "", "CSC": False, "CLASS_TOKEN_POSITION": "end", **keys}
    return Case(tree, "coop", "CoOp", keys, learner_only=True)


def _cocoop(tree: str = COOP, **keys: Any) -> Case:
    return Case(tree, "cocoop", "CoCoOp", {"N_CTX": 4, "CTX_INIT": "", **keys}, learner_only=True)


def _maple(**keys: Any) -> Case:
    return Case(MAPLE, "maple", "MaPLe", {"N_CTX": 2, "CTX_INIT": "a photo of a", **keys})


def _ivlp(**keys: Any) -> Case:
    sizes = {"N_CTX_VISION": 3, "N_CTX_TEXT": 2, "PROMPT_DEPTH_VISION": "some"}
    words = {"CTX_INIT": "a photo of a", "PROMPT_DEPTH_TEXT": "some"}
    return Case(MAPLE, "independentVL", "IVLP", {**sizes, **words, **keys})


def _vpt(depth: int | str) -> Case:
    keys = {"N_CTX_VISION": 4, "CTX_INIT": "a photo of a", "PROMPT_DEPTH_VISION": depth}
    return Case(MAPLE, "vpt", "VPT", keys)


def _kgcoop(**keys: Any) -> Case:
    ours = {"N_CTX": 4, "CTX_INIT": "", "W": 8.0, **keys}
    theirs = {**ours, "CSC": False, "CLASS_TOKEN_POSITION": "end", "PREC": "fp32"}
    return Case(
        "KgCoOp/KgCoOp",
        "kgcoop",
        "KgCoOp",
        ours,
        learner_only=True,
        config={"COOP": theirs, "COCOOP": {"PREC": "fp32"}},
        dataset="EuroSAT",
    )


def _prograd(projection: float, **keys: Any) -> Case:
    ours = {"N_CTX": 6, "CTX_INIT": "", "PROJECTION": projection, "TEMPERATURE": 2.0, **keys}
    theirs = {"N_CTX": 6, "CTX_INIT": keys.get("CTX_INIT", ""), "CSC": False}
    theirs |= {"CLASS_TOKEN_POSITION": "end", "PREC": "fp32"}
    return Case(
        "Prompt-align/ProGrad.public",
        "prograd",
        "ProGrad",
        ours,
        learner_only=True,
        config={"COOP": theirs},
        dataset="EuroSAT",
        loss={"NAME": "prograd", "T": 2.0, "LAMBDA": projection},
        dassl="Prompt-align/Dassl.ProGrad.pytorch",
    )


def _tcp(**keys: Any) -> Case:
    ours = {"N_CTX": 4, "CTX_INIT": "", **keys}
    theirs = {**ours, "CSC": False, "CLASS_TOKEN_POSITION": "end", "PREC": "fp32", "W": 1.0}
    return Case(
        "Textual-based_Class-aware_prompt_tuning",
        "tcp",
        "TCP",
        ours,
        learner_only=True,
        config={"COOP": theirs, "COCOOP": {"PREC": "fp32"}},
        dataset="EuroSAT",
    )


def _biomedcoop(tau: float, **keys: Any) -> Case:
    sizes = {"N_CTX": 4, "CTX_INIT": "a photo of a", "N_PROMPTS": 20}
    return Case(
        "BiomedCoOp",
        "BiomedCoOp.biomedcoop_clip",
        "BiomedCoOp",
        {**sizes, "TAU": tau, "SCCM_LAMBDA": 2.0, "KDSP_LAMBDA": 0.5, **keys},
        original="BiomedCoOp_CLIP",
        classnames=("glioma_tumor", "normal brain", "cyst kidney"),
        texts="BiomedCoOp",
    )


WORDS = {"CTX_INIT": "a photo of a"}
CASES = {
    **{
        f"CoOp, {place}{', class-specific' if csc else ''}": _coop(
            CLASS_TOKEN_POSITION=place, CSC=csc
        )
        for place in ("end", "middle", "front")
        for csc in (False, True)
    },
    "CoOp, words": _coop(**WORDS),
    "CoOp, MaPLe's tree": _coop(MAPLE),
    "CoCoOp": _cocoop(),
    "CoCoOp, words": _cocoop(**WORDS),
    "CoCoOp, MaPLe's tree": _cocoop(MAPLE, **WORDS),
    "KgCoOp": _kgcoop(),
    "KgCoOp, words": _kgcoop(**WORDS, W=2.0),
    "ProGrad": _prograd(1.0),
    "ProGrad, words": _prograd(0.8, CTX_INIT="a centered satellite photo of"),
    "TCP": _tcp(),
    "TCP, words": _tcp(**WORDS),
    "BiomedCoOp": _biomedcoop(1.25),
    "BiomedCoOp, random": _biomedcoop(1.0, CTX_INIT="", N_CTX=5),
    "MaPLe": _maple(PROMPT_DEPTH="some"),
    "MaPLe, all layers, long": _maple(PROMPT_DEPTH="all", N_CTX=5),
    "MaPLe, one layer": _maple(PROMPT_DEPTH=1),
    "VPT, shallow": _vpt(1),
    "VPT, deep": _vpt("all"),
    "IVLP": _ivlp(),
    "IVLP, text only": _ivlp(N_CTX_VISION=0, PROMPT_DEPTH_VISION=0, PROMPT_DEPTH_TEXT="all"),
}


@dataclass
class Bench:
    """A CLIP with random weights, in a file for both sides.

    Attributes:
        folder: for the CLIP and for checkpoints.
        clip: its weights under OpenAI's names.
        backbone: the same, behind our adapter.
        layers: of both towers.
        widths: of text and image tower; MaPLe's code hard-codes 512 and 768.
    """

    folder: Path
    layers: int
    image_size: int
    widths: tuple[int, int] = (512, 768)
    name: str = ""
    clip: dict[str, Tensor] = field(init=False)
    backbone: Backbone = field(init=False)

    def __post_init__(self) -> None:
        text, vision = self.widths
        widths = {"vision_width": vision, "text_width": text, "embed_dim": text}
        layers = {"vision_layers": self.layers, "text_layers": self.layers}
        config = tiny_clip_config(image_size=self.image_size, quick_gelu=True, **widths, **layers)
        config["text_cfg"]["heads"], config["vision_cfg"]["head_width"] = text // 64, 64
        self.name = write_clip_dir(self.folder, config)
        random = load_backbone(self.name, pretrained=False)
        generator = torch.Generator().manual_seed(SEED)
        self.clip = {
            name: tensor + JITTER * torch.randn(tensor.shape, generator=generator)
            for name, tensor in openai_state_from_open_clip(random.clip).items()
        }
        self.weights = str(self.folder / "clip.pt")
        torch.save(self.clip, self.weights)
        self.backbone = load_backbone(self.name, weights=self.weights)

    def keys(self, case: Case) -> dict[str, Any]:
        """Return the case's keys with depths as numbers."""
        depths = {"some": max(2, self.layers * 3 // 4), "all": self.layers}
        return {"PREC": "fp32", **{k: depths.get(v, v) for k, v in case.keys.items()}}

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,)."""
        generator = torch.Generator().manual_seed(SEED)
        images = torch.randn(IMAGES, 3, self.image_size, self.image_size, generator=generator)
        return images, torch.arange(IMAGES)

    def run(self, case: Case, **settings: Any) -> Run:
        """Return the original's run of one step; `settings` as in `Run`."""
        images, labels = self.batch()
        given = {"images": images[None], "labels": labels[None]}
        common = {"classnames": list(case.classnames), "image_size": self.image_size, "seed": SEED}
        step = {"lr": LEARNING_RATE, "epochs": 1, "dataset": case.dataset, "loss": case.loss}
        nodes = {"trainer": case.config or {case.node: self.keys(case)}}
        settings = {**common, **step, **nodes, "optim": WARM_UP, **settings}
        name = case.original or case.trainer
        return Run(f"trainers.{case.module}", name, given, settings, self.clip)

    def ours(self, case: Case, epochs: int = 1) -> Any:
        """Build our trainer on the same CLIP, without data."""
        cfg = get_cfg_default()
        extend_cfg(cfg)
        clip = self.backbone
        cfg.INPUT.SIZE = (self.image_size, self.image_size)
        cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = clip.image_mean, clip.image_std
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.INIT_WEIGHTS = self.name, self.weights
        cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH = "sgd", LEARNING_RATE, epochs
        cfg.DATASET.NAME = case.dataset
        cfg.TRAINER[case.node].update(self.keys(case))
        if case.texts:
            cfg.TRAINER[case.node].TEXTS = str(peer(case.texts))
        trainer = bare_trainer(case.ours(), cfg, list(case.classnames))
        trainer.run_seed, trainer.epoch, trainer.batch_idx = SEED, 0, 0
        trainer.train_seconds, trainer.train_steps = 0.0, 0
        with mock.patch("dplq.trainers._engine.frozen.load_backbone", return_value=clip):
            trainer.build_model()
        return trainer


def learned(case: Case, answer: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return one part of an original's results, such as "grad", under our names."""
    prefix = f"{part}.prompt_learner." if case.learner_only else f"{part}."
    tensors = {k.removeprefix(prefix): v for k, v in answer.items() if k.startswith(f"{part}.")}
    return case.ours().model_class.public.translate(tensors)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference over the largest value."""
    assert theirs.abs().max() > 0
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


@dataclass
class Differences:
    """Largest relative differences to an original: logits, gradients, weights, their change."""

    logits: float
    gradients: float
    weights: float
    step: float


def compare(bench: Bench, case: Case, answer: dict[str, Tensor]) -> Differences:
    """Run the same step from the original's state with our trainer; compare."""
    trainer = bench.ours(case)
    images, labels = bench.batch()
    trainer.model.load_tensors(learned(case, answer, "state"), case.trainer)
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model_inference(images)
    before = {n: p.detach().clone() for n, p in trainer.model.prompt_learner.named_parameters()}
    trainer.model.train()
    trainer.forward_backward({"img": images, "label": labels})
    parameters = dict(trainer.model.prompt_learner.named_parameters())
    grads, after = (learned(case, answer, part) for part in ("grad", "first"))
    assert parameters.keys() == grads.keys() == after.keys()
    return Differences(
        logits=relative(logits, answer["logits"]),
        gradients=max(relative(p.grad, grads[n]) for n, p in parameters.items()),
        weights=max(relative(p, after[n]) for n, p in parameters.items()),
        step=max(relative(p - before[n], after[n] - before[n]) for n, p in parameters.items()),
    )
