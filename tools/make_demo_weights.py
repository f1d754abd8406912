"""Train the demo's models: ``python -m tools.make_demo_weights [--out FOLDER] [--seed 0]``.

Two models are trained from scratch, on pictures rendered for it:

* a tiny CLIP, with open_clip's contrastive loss, on general-look pictures and varied captions: it
  has learned the concepts, but not the domain. It is trained on with its logit scale raised to that
  of public CLIPs, so that published learning rates act on it as on them;
* a tiny domain encoder, a timm ViT trained as a masked autoencoder on unlabelled domain-look
  pictures: it has learned the domain, but not the words.

The weights and the measured accuracies (`figures.json`) are written side by side. Training takes
about ten minutes on a GPU and two hours and a half on two CPU cores (50 minutes with
``--clip-pictures 1000 --clip-epochs 10 --domain-pictures 300 --domain-epochs 12``, for a CLIP that
is less accurate in the general look). Raising the logit scale takes ten minutes more on one core;
``--only raise`` does this alone, with the CLIP in the folder.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.demo import AERIAL_CLASSES, TISSUE_CLASSES, caption, render
from dplq.demo.models import (
    ASSETS,
    CLIP_CONFIG,
    CLIP_FILE,
    DOMAIN_ARCHITECTURE,
    DOMAIN_CONFIG,
    DOMAIN_FILE,
    FILLED,
    SIZE,
    compact_tokens,
    expand_tokens,
)
from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.atomic import write_bytes_atomically
from dplq.io.spec import Spec

logger = logging.getLogger(__name__)
CLASSES = AERIAL_CLASSES + TISSUE_CLASSES
# Disjoint seeds: test pictures are never trained on; those of the datasets start at 10**6.
FIRST_SEED = {"train": 0, "test": 500_000}
BATCH = 128
ZERO_SHOT = "a photo of a {}."
PATCH_DROPOUT = 0.5  # of CLIP's training (Li et al., FLIP): half the computation
LEARNING_RATE = {"clip": 1e-3, "raise": 3e-4}
SCALE = 100.0  # logit scale of public CLIPs: the limit in training (Radford et al., 2021, 2.5)


@dataclass
class Pictures:
    """Rendered pictures: uint8 (N, 3, 64, 64), labels (N,) into `CLASSES`, and facts."""

    images: Tensor
    labels: Tensor
    facts: list[dict[str, Any]]

    def of(self, classes: tuple[str, ...]) -> Pictures:
        """Return the pictures of some classes, with labels into these."""
        first = CLASSES.index(classes[0])
        keep = ((self.labels >= first) & (self.labels < first + len(classes))).nonzero()[:, 0]
        facts = [self.facts[int(index)] for index in keep]
        return Pictures(self.images[keep], self.labels[keep] - first, facts)


def draw(look: str, part: str, per_class: int, workers: int = 2) -> Pictures:
    """Render `per_class` pictures of every class."""
    seeds = range(FIRST_SEED[part], FIRST_SEED[part] + per_class)
    with ProcessPoolExecutor(workers) as pool:
        drawn = list(pool.map(functools.partial(_draw_class, look=look, seeds=seeds), CLASSES))
    images = torch.from_numpy(np.concatenate([images for images, _ in drawn]))
    labels = torch.arange(len(CLASSES)).repeat_interleave(per_class)
    return Pictures(images, labels, [facts for _, some in drawn for facts in some])


def _draw_class(name: str, look: str, seeds: range) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render one class: uint8 (N, 3, S, S), and the facts of each picture."""
    pictures = [render(name, look, seed, SIZE) for seed in seeds]
    images = np.stack([np.asarray(picture.image).transpose(2, 0, 1) for picture in pictures])
    return images, [picture.facts for picture in pictures]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise uint8 images (N, 3, H, W) to float, by channel."""
    shift, scale = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (mean, std))
    return (images.float() / 255 - shift) / scale


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, transpose and shift (up to 4 pixels) each picture of a square batch at random."""
    count, _, side, _ = images.shape
    choice = torch.randint(0, 2, (3, count, 1), generator=generator).to(images.device)
    shift = torch.randint(-4, 5, (2, count, 1), generator=generator).to(images.device)
    places = torch.arange(side, device=images.device) + shift  # (2, count, side)
    places = (side - 1) - (places.abs() - (side - 1)).abs()  # mirrored at the borders
    rows, columns = torch.where(choice[:2] == 1, side - 1 - places, places)
    picked = torch.arange(count, device=images.device).view(-1, 1, 1)
    moved = images[picked, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
    return torch.where(choice[2].view(-1, 1, 1, 1) == 1, moved.transpose(2, 3), moved)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Return random batches of indices, without the last incomplete one."""
    order = torch.randperm(count, generator=generator)
    return iter(order[: count - count % size].split(size))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: warm-up over a twentieth of the steps, then a cosine to 0."""
    warm = max(steps // 20, 1)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def ramp(epoch: float, epochs: int, first: float, last: float) -> float:
    """Return the logit scale: geometric over half the epochs, then constant.

    Args:
        epoch: epochs completed, with fractions.
        epochs: of the whole training.
        first: logit scale at epoch 0.
        last: logit scale from the middle of the training on.
    """
    return first * (last / first) ** min(2 * epoch / epochs, 1.0)


def new_clip(seed: int) -> Backbone:
    """Return the tiny CLIP untrained, and seed torch for its training."""
    import open_clip

    torch.manual_seed(seed)
    return Backbone(open_clip.CLIP(**CLIP_CONFIG), CLIP_CONFIG, {}, Spec("demo"))


def train_clip(
    backbone: Backbone,
    pictures: Pictures,
    seed: int,
    epochs: int,
    batch: int,
    device: str = "cpu",
    raise_to: float | None = None,
) -> Tensor:
    """Train the tiny CLIP in place, and freeze it again.

    Args:
        backbone: of `new_clip`, whose weights may have been replaced.
        pictures: to train on.
        seed: of the order, the augmentations and the captions.
        epochs: passes over the pictures.
        batch: pictures per step.
        device: to train on.
        raise_to: the logit scale follows `ramp` to it; None: it is learned, up to `SCALE`.

    Returns:
        The tokens used, bool (vocabulary,).
    """
    import open_clip

    generator = torch.Generator().manual_seed(seed)
    words = np.random.default_rng(seed)
    model: Any = backbone.to(device).clip
    model.requires_grad_(True)
    model.logit_scale.requires_grad_(raise_to is None)
    model.visual.patch_dropout = open_clip.transformer.PatchDropout(PATCH_DROPOUT)
    model.train()
    loss_of = open_clip.ClipLoss()
    tokens_of = functools.cache(lambda text: backbone.tokenize([text])[0])
    learned = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in learned if p.ndim > 1]
    plain = [p for p in learned if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    peak = LEARNING_RATE["clip" if raise_to is None else "raise"]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    first = backbone.logit_scale.item()
    steps, step, started = epochs * (len(pictures.labels) // batch), 0, time.time()
    used = torch.zeros(CLIP_CONFIG["text_cfg"]["vocab_size"], dtype=torch.bool)
    for epoch in range(epochs):
        for index in batches(len(pictures.labels), batch, generator):
            texts = [caption(CLASSES[pictures.labels[i]], pictures.facts[i], words) for i in index]
            tokens = torch.stack([tokens_of(text) for text in texts])
            used[tokens] = True
            images = augment(pictures.images[index].to(device), generator)
            images = normalise(images, backbone.image_mean, backbone.image_std)
            image = model.encode_image(images, normalize=True)
            text = F.normalize(backbone.encode_text(tokens.to(device)), dim=-1)
            loss = loss_of(image, text, backbone.logit_scale)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, peak)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            step += 1
            if raise_to is not None:
                scale = ramp(epochs * step / steps, epochs, first, raise_to)
                model.logit_scale.data.fill_(math.log(scale))
            model.logit_scale.data.clamp_(0, math.log(SCALE))
        scale, seconds = backbone.logit_scale.item(), time.time() - started
        message = "CLIP epoch %d/%d loss %.3f, logit scale %.1f, %.0f s"
        logger.info(message, epoch + 1, epochs, loss.item(), scale, seconds)
    model.requires_grad_(False).eval()
    used[0] = False  # padding follows the end token, masked out
    backbone.cpu()
    return used


@torch.no_grad()
def zero_shot(backbone: Backbone, pictures: Pictures, classes: tuple[str, ...]) -> float:
    """Return zero-shot accuracy in percent over `classes`, with `ZERO_SHOT` prompts."""
    prompts = [ZERO_SHOT.format(name) for name in classes]
    text = F.normalize(backbone.encode_text(backbone.tokenize(prompts)), dim=-1)
    pictures = pictures.of(classes)
    correct = 0
    for images, labels in zip(pictures.images.split(256), pictures.labels.split(256), strict=True):
        images = normalise(images, backbone.image_mean, backbone.image_std)
        image = F.normalize(backbone.encode_image(images), dim=-1)
        correct += int(((image @ text.T).argmax(dim=1) == labels).sum())
    return 100 * correct / len(pictures.labels)


class MaskedAutoencoder(nn.Module):
    """A small masked autoencoder around a timm ViT (He et al., 2022).

    Args:
        encoder: timm ViT with class token.
        width: of the decoder.
        mask_ratio: share of the patches that are masked.
    """

    encoder: Any  # a timm ViT: nn.Module does not declare its attributes
    patch: int
    count: int

    def __init__(self, encoder: nn.Module, width: int = 64, mask_ratio: float = 0.75) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.encoder = encoder
        self.patch = self.encoder.patch_embed.patch_size[0]
        self.count = self.encoder.patch_embed.num_patches
        self.visible = round(self.count * (1 - mask_ratio))
        self.decoder_embed = nn.Linear(self.encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, self.count, width) * 0.02)
        self.decoder = nn.Sequential(Block(width, 4), Block(width, 4), nn.LayerNorm(width))
        self.predict = nn.Linear(width, 3 * self.patch**2)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss: squared error of the masked patches' normalised pixels."""
        batch = len(images)
        order = torch.rand(batch, self.count, generator=generator).argsort(dim=1).to(images.device)
        visible, masked = order[:, : self.visible], order[:, self.visible :]
        tokens = self.decoder_embed(self._encode(images, visible))
        width = tokens.shape[-1]
        full = self.mask_token.expand(batch, self.count, -1)
        full = full.scatter(1, visible.unsqueeze(-1).expand(-1, -1, width), tokens)
        predicted = self.predict(self.decoder(full + self.position))
        target = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        target = F.layer_norm(target, target.shape[-1:])
        index = masked.unsqueeze(-1).expand(-1, -1, target.shape[-1])
        return F.mse_loss(predicted.gather(1, index), target.gather(1, index))

    def _encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the tokens of the visible patches, (B, visible, C)."""
        encoder = self.encoder
        patches = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
        patches = patches.gather(1, visible.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        cls = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(images), -1, -1)
        return encoder.norm(encoder.blocks(torch.cat([cls, patches], dim=1)))[:, 1:]


def train_domain_encoder(
    pictures: Pictures, seed: int, epochs: int, batch: int, device: str = "cpu"
) -> nn.Module:
    """Train the domain encoder, without labels."""
    import timm

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = timm.create_model(DOMAIN_ARCHITECTURE, num_classes=0, **DOMAIN_CONFIG)
    model = MaskedAutoencoder(encoder).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    steps, step, started = epochs * (len(pictures.labels) // batch), 0, time.time()
    for epoch in range(epochs):
        for index in batches(len(pictures.labels), batch, generator):
            images = augment(pictures.images[index].to(device), generator)
            images = normalise(images, IMAGENET_MEAN, IMAGENET_STD)
            loss = model(images, generator)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, 1e-3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        seconds = time.time() - started
        logger.info("MAE epoch %d/%d loss %.3f, %.0f s", epoch + 1, epochs, loss.item(), seconds)
    return encoder.eval().cpu()


@torch.no_grad()
def probe(encoder: Any, train: Pictures, test: Pictures) -> float:
    """Return the accuracy in percent of a linear probe on the domain encoder's features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(pictures: Pictures) -> np.ndarray:
        parts = [
            encoder.forward_features(normalise(images, IMAGENET_MEAN, IMAGENET_STD))[:, 1:].mean(1)
            for images in pictures.images.split(256)
        ]
        return torch.cat(parts).numpy()

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    classifier.fit(features(train), train.labels)
    return 100 * classifier.score(features(test), test.labels)


def round_to_half(model: Any) -> dict[str, Tensor]:
    """Round a module's weights to half precision, in place; return the state dict in it.

    Scalars stay as they are: a rounded logarithm of 100 is no longer one of 100.
    """
    for parameter in model.parameters():
        if parameter.ndim:
            parameter.data = parameter.data.half().float()
    state = model.state_dict()
    return {k: v.half() if v.is_floating_point() and v.ndim else v for k, v in state.items()}


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS, help="default: inside the package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), help="default: all, in this order"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="rendering processes")
    parser.add_argument("--clip-pictures", type=int, default=2000, help="per class")
    parser.add_argument("--clip-epochs", type=int, default=20)
    parser.add_argument("--raise-pictures", type=int, default=500, help="per class")
    parser.add_argument("--raise-epochs", type=int, default=6)
    parser.add_argument("--domain-pictures", type=int, default=600, help="per class")
    parser.add_argument("--domain-epochs", type=int, default=40)
    args = parser.parse_args()
    path = args.out / "figures.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    tests = {look: draw(look, "test", 50, args.workers) for look in ("general", "domain")}
    for name in (part for part in PARTS if part in (args.only or PARTS)):
        started = time.time()
        made = PARTS[name](args, tests)
        seconds = round(time.time() - started)
        figures[name] = {"seed": args.seed, "seconds": seconds, "device": args.device} | made
        if name == "clip":
            figures.pop("raise", None)  # of the CLIP that was replaced
    figures = {name: figures[name] for name in PARTS if name in figures}
    write_bytes_atomically(path, json.dumps(figures, indent=1).encode())
    logger.info("%s", json.dumps(figures, indent=1))


def make_clip(args: argparse.Namespace, tests: dict[str, Pictures]) -> dict[str, Any]:
    """Train and write the tiny CLIP; return its figures."""
    train = draw("general", "train", args.clip_pictures, args.workers)
    backbone = new_clip(args.seed)
    used = train_clip(backbone, train, args.seed, args.clip_epochs, BATCH, args.device)
    figures = {"pictures per class": args.clip_pictures, "epochs": args.clip_epochs}
    return figures | write_clip(args.out / CLIP_FILE, backbone, used, tests)


def make_raised(args: argparse.Namespace, tests: dict[str, Pictures]) -> dict[str, Any]:
    """Train the written CLIP on, with its logit scale raised; return its figures.

    Raises:
        UserError: its logit scale is `SCALE` already.
    """
    path = args.out / CLIP_FILE
    backbone, used = read_clip(path, args.seed)
    if math.isclose(backbone.logit_scale.item(), SCALE, rel_tol=1e-3):
        raise UserError(
            f"{path}: its logit scale is {SCALE:g} already. Train it anew first: --only clip raise."
        )
    train = draw("general", "train", args.raise_pictures, args.workers)
    used |= train_clip(
        backbone, train, args.seed, args.raise_epochs, BATCH, args.device, raise_to=SCALE
    )
    figures = {"pictures per class": args.raise_pictures, "epochs": args.raise_epochs}
    return figures | write_clip(path, backbone, used, tests)


def read_clip(path: Path, seed: int) -> tuple[Backbone, Tensor]:
    """Return a written CLIP and the tokens it was trained with, bool (vocabulary,)."""
    state, _ = checkpoint.read(path)
    backbone = new_clip(seed)
    model: Any = backbone.clip
    checkpoint.load_strictly(model, expand_tokens(state), path)
    used = torch.zeros(CLIP_CONFIG["text_cfg"]["vocab_size"], dtype=torch.bool)
    used[state[FILLED]] = True
    return backbone, used


def write_clip(
    path: Path, backbone: Backbone, used: Tensor, tests: dict[str, Pictures]
) -> dict[str, Any]:
    """Write a tiny CLIP; return its logit scale and accuracies."""
    state = round_to_half(backbone.clip)
    checkpoint.save(path, compact_tokens(state, used.nonzero()[:, 0].tolist()), {})
    accuracies = {
        f"{family}, {look} look": zero_shot(backbone, pictures, classes)
        for family, classes in (("aerial", AERIAL_CLASSES), ("tissue", TISSUE_CLASSES))
        for look, pictures in tests.items()
    }
    scale = round(backbone.logit_scale.item(), 2)
    return {"logit scale": scale, "zero-shot accuracy": accuracies}


def make_domain(args: argparse.Namespace, tests: dict[str, Pictures]) -> dict[str, Any]:
    """Train and write the tiny domain encoder; return its accuracy."""
    train = draw("domain", "train", args.domain_pictures, args.workers)
    encoder = train_domain_encoder(train, args.seed, args.domain_epochs, BATCH, args.device)
    checkpoint.save(args.out / DOMAIN_FILE, round_to_half(encoder), {})
    aerial = (pictures.of(AERIAL_CLASSES) for pictures in (train, tests["domain"]))
    return {
        "pictures per class": args.domain_pictures,
        "epochs": args.domain_epochs,
        "linear probe, aerial, domain look": probe(encoder, *aerial),
    }


PARTS = {"clip": make_clip, "raise": make_raised, "domain": make_domain}


if __name__ == "__main__":
    main()
