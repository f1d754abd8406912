"""The models that are compared, their class names and inputs, and their training step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import Any

import open_clip
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dplq.trainers  # noqa: F401 (makes `import dassl` work, which the datasets need)
from benchmarks.step_plain import PlainModel
from dplq import QuaternionPromptCLIP, load_backbone, load_domain_encoder
from dplq.clip.backbone import Backbone
from dplq.datasets import DECLARED
from dplq.domain.encoder import DomainEncoder
from dplq.io.spec import Spec
from dplq.training.precision import Precision
from dplq.training.step_graph import CUDARecorder, StepGraph

N_CTX, DEPTH, WORDS, SEED = 2, 9, "a photo of a", 0
LEARNING_RATE = 1e-5  # the release's warm-up rate; random weights must not diverge
TINY_CLIP = {
    "embed_dim": 512,  # DPLQ and MaPLe hard-code the widths of ViT-B/16
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 768, "patch_size": 16},
    "text_cfg": {"width": 512, "heads": 8, "layers": 2},
    "quick_gelu": True,
}
TINY_DOMAIN = {"img_size": 32, "embed_dim": 512, "depth": 2, "num_heads": 8, "num_classes": 0}
QUALIFIERS = (
    *("small", "large", "old", "new", "dry", "wet", "bright", "dark", "northern", "southern"),
    *("coastal", "rural", "urban", "wooded", "empty", "busy", "narrow", "wide", "flooded", "snowy"),
)


class Side(nn.Module):
    """One model under measurement.

    Args:
        name: as on the command line.
        texts_per_image: whether the text tower runs all classes for each image.

    Attributes:
        trains: whether it has learnable parameters.
    """

    trains = True

    def __init__(self, name: str, *, texts_per_image: bool = True) -> None:
        super().__init__()
        self.name, self.texts_per_image = name, texts_per_image

    def set_classes(self, names: Sequence[str]) -> None:
        """Classify into these classes from now on."""

    def prepare(self, images: Tensor) -> None:
        """Compute what is computed once per image and not timed."""

    def in_one_go(self) -> AbstractContextManager:
        """Return a context in which no chunk of the step is recomputed."""
        return nullcontext()

    def learnable(self) -> dict[str, nn.Parameter]:
        """Return the learnable parameters by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


class LogitsSide(Side):
    """Our model or the plain one; `cached`: ours with precomputed domain features."""

    def __init__(self, name: str, model: nn.Module, *, cached: bool = False) -> None:
        super().__init__(name)
        self.model, self.cached = model, cached

    def set_classes(self, names: Sequence[str]) -> None:
        """Classify into these classes from now on."""
        self.model.set_classnames(names)

    def prepare(self, images: Tensor) -> None:
        """Compute the domain features if they count as cached."""
        if self.cached:
            self.register_buffer("features", self.model.domain(images), persistent=False)

    @contextmanager
    def in_one_go(self) -> Iterator[None]:
        """Run all classes as one chunk, so that nothing is recomputed."""
        chunk = getattr(self.model, "text_chunk", None)  # the plain model has none
        self.model.text_chunk = sys.maxsize
        try:
            yield
        finally:
            self.model.text_chunk = chunk

    def forward(self, images: Tensor, labels: Tensor | None = None, **given: Any) -> Tensor:
        """Return the loss, or without labels the logits (B, K)."""
        if self.cached:
            given["domain_features"] = self.features
        logits = self.model(images, **given)
        return logits if labels is None else F.cross_entropy(logits, labels)


class DomainSide(Side):
    """The domain encoder's forward pass alone."""

    trains = False

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__("domain", texts_per_image=False)
        self.encoder = encoder

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return domain features (B, d_f)."""
        return self.encoder(images)


def build_ours(tiny: bool, device: torch.device, text_chunk: int | str) -> QuaternionPromptCLIP:
    """Build our model with random weights: ViT-B/16 and MAE ViT-B, or tiny ones.

    The domain feature is 512 wide ("decoder_embed"), as the release expects.
    """
    if tiny:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            clip = Backbone(open_clip.CLIP(**TINY_CLIP), TINY_CLIP, {}, Spec("tiny"))
            domain = DomainEncoder(
                timm.models.VisionTransformer(**TINY_DOMAIN),
                spec=Spec("tiny"),
                image_size=TINY_DOMAIN["img_size"],
                feature_dim=TINY_DOMAIN["embed_dim"],
            )
    else:
        clip = load_backbone("ViT-B/16", pretrained=False, seed=SEED)
        domain = load_domain_encoder(
            "mae_vit_base_patch16", feature="decoder_embed", pretrained=False, seed=SEED
        )
    depth = min(DEPTH, clip.text_layers)
    sizes = {"n_ctx": N_CTX, "ctx_init": WORDS, "prompt_depth": depth, "seed": SEED}
    model = QuaternionPromptCLIP(clip, domain, ["river"], **sizes).to(device)
    model.text_chunk = text_chunk
    return model


def build_side(name: str, ours: QuaternionPromptCLIP) -> Side:
    """Build the side of that name; originals are built by `step_originals`."""
    if name == "plain":
        return LogitsSide(name, PlainModel(ours))
    if name == "domain":
        return DomainSide(ours.domain)
    return LogitsSide(name, ours, cached=name == "ours, cached")


def class_names(count: int) -> list[str]:
    """Return names of remote-sensing classes, mostly 1 to 4 tokens long.

    Those of a declared dataset with exactly `count` classes, if there is one; else NWPU-RESISC45's,
    then those of the other datasets, then the same with an adjective.
    """
    tables = {
        name: [row[0] for row in dataset.class_table]
        for name, dataset in DECLARED.items()
        if dataset.domain == "remote sensing" and not dataset.test_only
    }
    for names in tables.values():
        if len(names) == count:
            return names
    known = dict.fromkeys(name.lower() for name in tables["NWPU"])
    known |= dict.fromkeys(name.lower() for names in tables.values() for name in names)
    known = [name for name in known if len(name.split()) <= 3]
    short = [name for name in known if len(name.split()) <= 2]
    more = [f"{adjective} {name}" for adjective, name in product(QUALIFIERS, short)]
    names = list(dict.fromkeys([*known, *more]))
    assert count <= len(names), f"{count} classes; there are names for {len(names)}"
    return names[:count]


def inputs(ours: QuaternionPromptCLIP, batch: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return random images (B, 3, H, W) and labels (B,), the same in each run."""
    generator = torch.Generator().manual_seed(SEED + 1)
    size, device = ours.clip.image_size, ours.prompt_learner.ctx.device
    images = torch.randn(batch, 3, size, size, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    return images.to(device), labels.to(device)


def stepper(
    side: Side,
    what: str,
    images: Tensor,
    labels: Tensor,
    precision: Precision,
    *,
    graph: bool = False,
) -> Callable[[], Any]:
    """Return a function that runs one training step or evaluates one batch.

    The training step is that of `trainers/_engine/base.py` without logging: loss, gradients, SGD.
    It is the same for all sides, but that the gradients can come from a CUDA graph.
    """
    side.train(what == "train").prepare(images)
    if what == "eval" or not side.trains:

        def evaluate() -> Tensor:
            with torch.no_grad(), precision.autocast():
                return side(images)

        return evaluate
    learned = list(side.learnable().values())
    optimizer = torch.optim.SGD(learned, lr=LEARNING_RATE, momentum=0.9)
    scaler = precision.grad_scaler()

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        with precision.autocast():
            loss = side(images, labels)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach(), loss.detach()

    if graph:
        recorder = CUDARecorder(images.device, ())
        gradients = StepGraph(gradients, side.model, learned, recorder)

    def train() -> None:
        gradients(images, labels)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()

    return train


def shape_run(side: Side, what: str) -> Callable:
    """What `step_meters.count_flops` is to run: the step of `stepper`, without the optimiser."""
    side.train(what == "train")

    def run(forward: Callable, images: Tensor, labels: Tensor) -> None:
        if what == "train" and side.trains:
            with side.in_one_go():
                forward(images, labels).backward()
        else:
            with torch.no_grad():
                forward(images)

    return run
