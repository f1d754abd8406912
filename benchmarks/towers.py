"""Build all of open_clip's pretrained pairs, count their prompts, and run every kind of them.

    python benchmarks/towers.py [--out FOLDER]

No weights are needed. Every architecture is built on the meta device, at its full size, and asked
what it supports. Then each, made small and with random weights, runs zero-shot and a linear probe;
the first of every combination of towers runs the prompts that it takes, too. Hub tokenizers are
replaced with random ids. Exit code 1: a model does not build or does not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from dplq.clip.backbone import CONFIG_FILE, Backbone, load_backbone
from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.clip.installed import open_clip
from dplq.clip.load import build
from dplq.clip.sources import find_source
from dplq.errors import UserError, one_line
from dplq.methods.heads.fitting import FitData, Labelled
from dplq.methods.registry import create_model
from tests.tiny_timm import image_size, size_of, small_timm

NAMES = ["river", "forest", "dense residential"]
WIDTH, LAYERS, HEADS = 64, 3, 4
EVERYWHERE = ("ZeroshotCLIP", "LinearProbe")  # run on every architecture
HF_FACTS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "d_model": WIDTH,
    "d_kv": WIDTH // HEADS,
    "d_ff": WIDTH,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": WIDTH,
    "decoder_ffn_dim": WIDTH,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
}
# What a pair can support -> whether a backbone does.
SUPPORT: dict[str, Callable[[Backbone], bool]] = {
    "image prompts": lambda clip: not clip.lacks("image prompts"),
    "text prompts": lambda clip: not clip.lacks("text prompts"),
    "both": lambda clip: not (clip.lacks("image prompts") or clip.lacks("text prompts")),
    "packed texts": lambda clip: clip.supports_packing,
    "changed weights": lambda clip: not (clip.image.lacks_blocks or clip.text.lacks_blocks),
}


@dataclass
class Report:
    """What was found.

    Attributes:
        pairs: open_clip's (model, tag) pairs.
        failed: model -> why it was not built, or did not run.
        support: model -> the keys of `SUPPORT` that hold.
        towers: model -> its kinds of image tower and of text tower.
        ran: the methods that ran on a small model of every combination of towers.
    """

    pairs: list[tuple[str, str]]
    failed: dict[str, str] = field(default_factory=dict)
    support: dict[str, list[str]] = field(default_factory=dict)
    towers: dict[str, tuple[str, str]] = field(default_factory=dict)
    ran: dict[tuple[str, str], tuple[str, list[str]]] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the counts, in pairs, and what ran."""
        tags = Counter(model for model, _ in self.pairs)
        counts = {
            what: sum(tags[model] for model, found in self.support.items() if what in found)
            for what in SUPPORT
        }
        built = sum(tags[model] for model in self.support)
        lines = [
            f"{len(self.pairs)} pairs, {len(tags)} architectures; {built} pairs build.",
            *("", "| supports | pairs |", "|---|---|"),
            *(f"| {what} | {count} |" for what, count in counts.items()),
            *(
                "",
                "| image tower | text tower | pairs | made small | ran |",
                "|---|---|---|---|---|",
            ),
        ]
        for combination in sorted(set(self.towers.values())):
            pairs = sum(tags[m] for m, towers in self.towers.items() if towers == combination)
            model, methods = self.ran.get(combination, ("", []))
            lines.append(
                f"| {' | '.join(combination)} | {pairs} | {model} | {', '.join(methods)} |"
            )
        lines += ["", *(f"* {model}: {why}" for model, why in self.failed.items())]
        return "\n".join(lines).rstrip() + "\n"


def kinds_of(clip: Backbone) -> tuple[str, str]:
    """Return the kinds of image tower and text tower, as a reader knows them."""
    visual: Any = clip.clip.visual
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:
        image = f"timm {type(trunk).__name__}, {getattr(trunk, 'global_pool', '') or 'own pool'}"
    elif hasattr(visual, "attn_pool") and visual.attn_pool is not None:
        image = "ViT, attention"
    else:
        image = f"ViT, {visual.pool_type}" if hasattr(visual, "pool_type") else "ResNet"
    text: Any = getattr(clip.clip, "text", clip.clip)
    if hasattr(text, "pooler"):
        return image, f"Hugging Face {text.config.model_type}"
    pool = text.text_pool_type if text is clip.clip else text.pool_type
    if getattr(text, "cls_emb", None) is not None:
        pool = "class token"
    return image, f"{'bidirectional' if text.attn_mask is None else 'causal'}, {pool}"


def survey(report: Report) -> None:
    """Build every architecture without weights; encode an image's shape."""
    for model in dict.fromkeys(model for model, _ in report.pairs):
        try:
            source = find_source(model, "", False, 0)
            clip = Backbone(build(source, "meta"), source.config, source.preprocess, source.spec)
            size = clip.image_size
            features = clip.encode_image(torch.zeros(1, 3, size, size, device="meta"))
            assert features.shape == (1, clip.embed_dim)
        except Exception as error:  # a survey names what fails and goes on
            report.failed[model] = one_line(error)
            continue
        report.support[model] = [what for what, holds in SUPPORT.items() if holds(clip)]
        report.towers[model] = kinds_of(clip)


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model config with the same keys and small numbers."""
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    if "timm_model_name" in vision:
        vision["image_size"] = image_size(vision["timm_model_name"])
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32}
    else:
        vision |= {"layers": LAYERS, "width": WIDTH, "head_width": 16, "mlp_ratio": 2.0}
        vision["image_size"] = 2 * vision["patch_size"]
    text |= {"width": WIDTH, "heads": HEADS, "layers": LAYERS}
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = 1000
    small = config | {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    if "multimodal_cfg" in config:
        decoder = {"width": WIDTH, "heads": HEADS, "layers": 1, "attn_pooler_heads": HEADS}
        small["multimodal_cfg"] = config["multimodal_cfg"] | decoder
        vision |= {"attn_pooler_heads": HEADS}
    return small


def facts_of(name: str) -> dict[str, Any]:
    """Return transformers' config.json of a small text tower of the kind of a hub model."""
    kinds = {"nllb": "m2m_100", "mt5": "mt5", "xlm-roberta": "xlm-roberta", "roberta": "roberta"}
    kind = next((kind for part, kind in kinds.items() if part in name), "bert")
    return {"model_type": kind, **HF_FACTS}


def small_backbone(config: dict[str, Any], folder: Path) -> Backbone:
    """Return the small model of a model config, with random weights."""
    folder.mkdir(parents=True)
    small = shrunk(config)
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": small}), encoding="utf-8")
    if hub := small["text_cfg"].get("hf_model_name"):
        (folder / "config.json").write_text(json.dumps(facts_of(hub)), encoding="utf-8")
    clip = load_backbone(f"local-dir:{folder}", pretrained=False)
    if hub or "hf_tokenizer_name" in small["text_cfg"]:
        clip.text.tokenizer = RandomIds(clip.text.context_length)
    return clip


class RandomIds(HubTokenizer):
    """A stand-in for a hub tokenizer: start marker, own tokens, end marker (id 2), padding (1)."""

    markers, pad_id = (1, 1), 1

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids (N, length)."""
        ids = torch.full((len(texts), self.length), self.pad_id)
        for row, text in zip(ids, texts, strict=True):
            own = [3 + sum(map(ord, word)) % 900 for word in text.replace(".", " .").split()]
            row[: len(own) + 2] = torch.tensor([0, *own, 2])
        return ids

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of the end marker."""
        return (tokens == 2).int().argmax(dim=-1)

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens between the markers."""
        return self.end(tokens) - 1


def methods_for(clip: Backbone) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the methods to run, with settings."""
    yield "ZeroshotCLIP", {}
    yield "LinearProbe", {}
    able = {what for what, holds in SUPPORT.items() if holds(clip)}
    if "text prompts" in able:
        yield "CoOp", {"n_ctx": 2}
        yield "CoCoOp", {"n_ctx": 2}
    if "image prompts" in able:
        yield "VPT", {"prompt_depth_vision": 2}
    if "both" in able:
        yield "MaPLe", {"prompt_depth": 2, "ctx_init": ""}


def run_method(clip: Backbone, method: str, settings: dict[str, Any]) -> None:
    """Run a method's forward pass, and its backward pass or fit.

    Raises:
        AssertionError: a logit is not finite, or a gradient is missing.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, clip.image_size, clip.image_size, generator=generator)
    model: Any = create_model(method, clip, NAMES, seed=0, **settings)
    if method == "LinearProbe":
        with torch.no_grad():
            features = model.features(images)[None]
        model.fit(FitData(Labelled(features, torch.tensor([0, 1, 2] * 2))))
    logits = model(images)
    assert logits.shape == (6, len(NAMES))
    assert logits.isfinite().all()
    if learned := [p for p in model.prompt_learner.parameters() if p.requires_grad]:
        grads = torch.autograd.grad(logits.logsumexp(dim=-1).sum(), learned)
        assert all(grad.isfinite().all() for grad in grads)


def run_small(report: Report, folder: Path) -> None:
    """Run every architecture, made small; one of every combination of towers with prompts, too."""
    for model, combination in report.towers.items():
        config = open_clip().get_model_config(model)
        if not _has_size(config["vision_cfg"]):
            report.failed[model] = "no small size is known of its image tower"
            continue
        done = []
        try:
            clip = small_backbone(config, folder / model)
            for method, settings in methods_for(clip):
                if combination not in report.ran or method in EVERYWHERE:
                    run_method(clip, method, settings)
                    done.append(method)
        except (AssertionError, RuntimeError, UserError) as error:
            report.failed[model] = f"after {done}: {one_line(error)}"
        report.ran.setdefault(combination, (model, done))


def _has_size(vision: dict[str, Any]) -> bool:
    name = vision.get("timm_model_name")
    return name is None or bool(size_of(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the survey; print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("output/benchmarks/towers"))
    options = parser.parse_args(arguments)
    report = Report(list(open_clip().list_pretrained()))
    survey(report)
    with small_timm(), tempfile.TemporaryDirectory() as folder:
        run_small(report, Path(folder))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{Path(__file__).stem}.md").write_text(report.markdown(), encoding="utf-8")
    print(report.markdown())
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
