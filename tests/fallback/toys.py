"""A toy dataset and toy trainers, written for either Dassl."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from PIL import Image
from torch import nn
from torch.nn import functional as F

CLASSES = ("red", "green", "blue")
PER_CLASS = 10


def write_images(root: Path) -> None:
    """Write noisy pictures whose strongest channel is the class: <class>_<number>.png, 24 x 20."""
    draw = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(CLASSES):
        for number in range(PER_CLASS):
            pixels = draw.integers(0, 160, (20, 24, 3))
            pixels[..., label] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}_{number}.png")


@DATASET_REGISTRY.register()
class Toy(DatasetBase):
    """Of each class 5 images to train (domain = number % 2), 2 to validate, 3 to test."""

    def __init__(self, cfg):
        items = [
            [
                Datum(str(Path(cfg.DATASET.ROOT) / f"{name}_{n}.png"), label, n % 2, name)
                for n in range(PER_CLASS)
            ]
            for label, name in enumerate(CLASSES)
        ]
        train = [item for group in items for item in group[:5]]
        val = [item for group in items for item in group[5:7]]
        test = [item for group in items for item in group[7:]]
        train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, train_u=test, val=val, test=test)


class _Linear:
    """A linear classifier on the pixels."""

    def build_model(self):
        height, width = self.cfg.INPUT.SIZE
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("toy_net", self.model, self.optim, self.sched)
        self.history = []

    def learn(self, images, labels):
        output = self.model(images)
        loss = F.cross_entropy(output, labels)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        self.history.append(loss.item())
        return {"loss": loss.item(), "acc": compute_accuracy(output, labels)[0].item()}


@TRAINER_REGISTRY.register()
class ToyX(_Linear, TrainerX):
    """Learns from labelled images."""

    def forward_backward(self, batch):
        images, labels, _ = self.parse_batch_train(batch)
        return self.learn(images, labels)


@TRAINER_REGISTRY.register()
class ToyXU(_Linear, TrainerXU):
    """Also looks at the unlabelled images, as a small shift of the labelled ones."""

    def forward_backward(self, batch_x, batch_u):
        images, labels, others = self.parse_batch_train(batch_x, batch_u)
        return self.learn(images + 0.01 * others.mean(), labels)


def toy_config(root: Path, out: Path):
    """Return the defaults with the toy's settings."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.OUTPUT_DIR = str(root), "Toy", str(out)
    cfg.TRAINER.NAME = "ToyX"
    cfg.USE_CUDA = False
    cfg.INPUT.SIZE = (16, 16)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.DATASET.NUM_SHOTS = 4
    cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH = "sgd", 0.005, 2
    cfg.OPTIM.LR_SCHEDULER = "cosine"
    cfg.TRAIN.PRINT_FREQ = 2
    return cfg


def train_toy(cfg):
    """Seed, train and return the trainer."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    set_random_seed(1)
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer
