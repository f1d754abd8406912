"""The hand-written text of a dataset."""

from __future__ import annotations

from typing import Any

from dplq.clip.templates import DEFAULT_TEMPLATE

# CoOp's, for datasets of host trees, which carry no `template`.
TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


def dataset_template(trainer: Any) -> str:
    """Return the zero-shot text: the dataset class's `template`, else CoOp's, else the usual."""
    own = getattr(trainer.dm.dataset, "template", "")
    return own or TEMPLATES.get(trainer.cfg.DATASET.NAME, DEFAULT_TEMPLATE)
