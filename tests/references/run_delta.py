"""Run an original method that changes CLIP's weights for one step, on the CPU in fp32.

`run` uses a separate process (this file run as a script), because the trees' packages share names.
Given are CLIP's weights (``clip.*``, OpenAI's names), ``images``, ``labels``, ``tokens`` of the
classes' texts, ``state.*``: learnable weights under the tree's names, added to its own initial
ones. Returned are ``logits`` before the step, ``loss``, ``grad.*`` and ``after.*`` under the tree's
names; 2SFS adds ``second.*`` of its second stage.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

RATE, DECAY = 0.01, 0.01
NO_DROPOUT = 1e-12  # at 0 the tree undoes its change in place, before the backward pass reads it


def run(tree: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the answer of the tree's method.

    Raises:
        AssertionError: the tree failed; the message contains the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "given", Path(folder) / "answer"
        save_file({name: t.contiguous() for name, t in given.items()}, question)
        command = [sys.executable, __file__, str(tree), str(question), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return load_file(answer)


def _clip(given: dict[str, Tensor]) -> nn.Module:
    model = importlib.import_module("clip.model")
    model.convert_weights = lambda clip: None  # stay in float32
    state = {k.removeprefix("clip."): v for k, v in given.items() if k.startswith("clip.")}
    return model.build_model(state).float()


def _clip_logits(clip: nn.Module, given: dict[str, Tensor]) -> Tensor:
    text, image = clip.encode_text(given["tokens"]), clip.encode_image(given["images"])
    text, image = (x / x.norm(dim=-1, keepdim=True) for x in (text, image))
    return clip.logit_scale.exp() * image @ text.t()


def _step(
    parameters: dict[str, nn.Parameter], logits: Callable[[], Tensor], labels: Tensor
) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=DECAY)
    found = logits()
    loss = F.cross_entropy(found, labels)
    loss.backward()
    answer = {f"grad.{name}": p.grad.clone() for name, p in parameters.items()}
    optimizer.step()
    after = {f"after.{name}": p.detach().clone() for name, p in parameters.items()}
    return {"logits": found.detach(), "loss": loss.detach(), **answer, **after}


def _learnable(clip: nn.Module, given: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    parameters = {name: p for name, p in clip.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter += given[f"state.{name}"].reshape(parameter.shape)
    return parameters


def _lora(given: dict[str, Tensor]) -> dict[str, Tensor]:
    lora = importlib.import_module("loralib.utils")
    clip = _clip(given)
    arguments = types.SimpleNamespace(
        encoder="both", position="all", backbone="ViT-B/16", params=["q", "k", "v"],
        r=2, alpha=1, dropout_rate=NO_DROPOUT,
    )  # fmt: skip
    lora.apply_lora(arguments, clip)
    lora.mark_only_lora_as_trainable(clip)
    for name, parameter in clip.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()  # so that `state.*` is the whole
    return _step(_learnable(clip, given), lambda: _clip_logits(clip, given), given["labels"])


def _svd(given: dict[str, Tensor]) -> dict[str, Tensor]:
    attention = importlib.import_module("svf_utils.PlainHeadAttention").PlainMultiHeadAttention
    resolver = importlib.import_module("svf_utils.svf_torch").resolver
    choose = importlib.import_module("svf_utils.utils").set_clip_trainable_parameters
    clip = _clip(given)
    for tower in (clip.visual.transformer, clip.transformer):
        for block in tower.resblocks:
            new = attention(embed_dim=block.attn.embed_dim, num_heads=block.attn.num_heads)
            new.set_parameters(block.attn)
            block.attn = new
    clip = resolver(clip, global_low_rank_ratio=1.0)
    flags = ("image_encoder", "text_encoder", "mlp", "q", "k", "v", "o_proj")
    chosen = {f"train_{flag}": True for flag in flags}
    choose(types.SimpleNamespace(include_train_layers="all", **chosen), clip)
    return _step(_learnable(clip, given), lambda: _clip_logits(clip, given), given["labels"])


def _two_stage(given: dict[str, Tensor]) -> dict[str, Tensor]:
    stages = importlib.import_module("fs.twostage")
    clip = _clip(given)
    stages.trainable_norm_params(clip)
    parameters = _learnable(clip, given)
    answer = _step(parameters, lambda: _clip_logits(clip, given), given["labels"])
    stages.tokenize_texts = lambda template, classnames: given["tokens"][: len(classnames)]
    names = [str(number) for number in range(len(given["tokens"]))]
    second = stages.SingleStreamClassifier(clip, names)
    parameters = {"classifier": second.classifier}
    images, labels = given["images"], given["labels"]
    step = _step(parameters, lambda: second(images, no_grad_backbone=True), labels)
    stages.tokenize_texts = lambda template, classnames: given["others"]
    mixed = second.infer(images, ["new", "0", "newer"])
    return {**answer, **{f"second.{k}": v for k, v in step.items()}, "second.mixed": mixed}


METHODS = {"CLIP-LoRA": _lora, "CLIP-SVD": _svd, "rethinking_fewshot_vlms": _two_stage}


def main(tree: str, question: str, answer: str) -> None:
    """Answer the question in one file into another."""
    sys.path.insert(0, tree)
    found = METHODS[Path(tree).name](load_file(question))
    save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
