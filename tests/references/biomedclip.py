"""BiomedCoOp's trainers on BiomedCLIP's architecture, and ours on the same random weights.

The text tower has BiomedCLIP's width, which the originals' code hard-codes, and few layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dplq.clip.backbone import load_backbone
from tests.references.originals import JITTER, SEED, WORDS, Bench, Case
from tests.references.run_original import Run
from tests.tiny import write_biomedclip_dir

TREE = "BiomedCoOp"
WEIGHTS = "open_clip_pytorch_model.bin"
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
NAMES = ("glioma_tumor", "normal brain", "cyst kidney")
LENGTH, WIDTH, EMBED_DIM, IMAGE_SIZE = 48, 768, 512, 224


def _case(module: str, trainer: str, keys: dict[str, Any], **extra: Any) -> Case:
    given = {"learner_only": True, "classnames": NAMES, "dataset": "BUSI", **extra}
    return Case(TREE, module, trainer, keys, original=f"{trainer}_BiomedCLIP", **given)


def _theirs(node: str, **keys: Any) -> dict[str, dict[str, Any]]:
    return {node: {"N_CTX": 4, "CSC": False, "CLASS_TOKEN_POSITION": "end", "PREC": "fp32", **keys}}


def _coop(**keys: Any) -> Case:
    ours = {"N_CTX": 4, "CTX_INIT": "", "CSC": False, **keys}
    return _case("CoOp.coop_biomedclip", "CoOp", ours, config=_theirs("COOP", **ours))


def _cocoop(**keys: Any) -> Case:
    ours = {"N_CTX": 4, "CTX_INIT": "", **keys}
    return _case("CoCoOp.cocoop_biomedclip", "CoCoOp", ours, config=_theirs("COCOOP", **ours))


def _kgcoop() -> Case:
    ours = {"N_CTX": 4, **WORDS, "W": 8.0}
    return _case("KgCoOp.kgcoop_biomedclip", "KgCoOp", ours, config=_theirs("KGCOOP", **ours))


def _biomedcoop() -> Case:
    sizes = {"N_CTX": 4, **WORDS, "N_PROMPTS": 5}
    ours = {**sizes, "TAU": 1.25, "SCCM_LAMBDA": 2.0, "KDSP_LAMBDA": 0.5}
    return _case(
        "BiomedCoOp.biomedcoop_biomedclip",
        "BiomedCoOp",
        ours,
        config=_theirs("BIOMEDCOOP", **ours),
        learner_only=False,
        texts=TREE,
    )


CASES = {
    "CoOp": _coop(),
    "CoOp, words": _coop(**WORDS),
    "CoOp, class-specific": _coop(CSC=True),
    "CoCoOp": _cocoop(),
    "CoCoOp, words": _cocoop(**WORDS),
    "KgCoOp": _kgcoop(),
    "BiomedCoOp": _biomedcoop(),
}
ZEROSHOT = Case(
    TREE,
    "Zeroshot.zeroshot",
    "ZeroshotCLIP",
    {},
    original="ZeroshotBiomedCLIP",
    classnames=NAMES,
    dataset="BUSI",
    home="zeroshot",
)


@dataclass
class BiomedBench(Bench):
    """A BiomedCLIP with random weights, in a folder for both sides.

    Attributes:
        dropout: of the text tower in training mode, in which BiomedCoOp's own method runs it.
    """

    layers: int = 2
    image_size: int = IMAGE_SIZE
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = {"width": WIDTH, "layers": self.layers, "embed_dim": EMBED_DIM}
        sizes |= {"image_size": self.image_size, "context_length": LENGTH}
        dropout = dict.fromkeys(DROPOUT, self.dropout)
        self.name = write_biomedclip_dir(self.folder, facts=dropout, **sizes)
        state = load_backbone(self.name, pretrained=False).clip.state_dict()
        generator = torch.Generator().manual_seed(SEED)
        for tensor in state.values():
            tensor += JITTER * torch.randn(tensor.shape, generator=generator)
        torch.save(state, self.folder / WEIGHTS)
        self.clip, self.weights = {}, ""
        self.backbone = load_backbone(self.name)

    def run(self, case: Case, **settings: Any) -> Run:
        """Return the original's run of one step; `settings` as in `Run`."""
        return super().run(case, biomedclip=str(self.folder), **settings)
