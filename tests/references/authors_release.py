"""Run the authors' release of DPLQ, unmodified, on the CPU in fp32; return its results.

The release imports packages that its repository lacks, calls `.cuda()` and `.half()`, loads a
domain encoder from an absolute path and appends to a log file there at each forward pass. All of
this is patched in a separate process (this file run as a script), so that the tests' process stays
clean. Tensors are passed in safetensors files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONTEXT_WORDS = "a photo of a"
TIMEOUT_SECONDS = 600

# Ours (tests/references/naive_reference.py) -> the release's, as regular expressions.
RENAMES = (
    (r"ctx", r"ctx"),
    (r"deep_text\.(\d+)", r"compound_prompts_text.\1"),
    (r"meta_net\.0\.(weight|bias)", r"meta_net.linear1.\1"),
    (r"meta_net\.2\.(weight|bias)", r"meta_net.linear2.\1"),
    (r"vision_proj\.(weight|bias)", r"proj.\1"),
    (r"language\.([rijk])", r"visual_net_orthogonality.\1_weight"),
    (r"language\.bias", r"visual_net_orthogonality.bias"),
    (r"vision\.(\d+)\.([rijk])", r"compound_prompt_projections.\1.\2_weight"),
    (r"vision\.(\d+)\.bias", r"compound_prompt_projections.\1.bias"),
)


def release_name(name: str) -> str:
    """Translate one of our learnable names to the release's name inside its prompt learner.

    Raises:
        ValueError: the release has no such tensor (for example the residual variant's gains).
    """
    for ours, theirs in RENAMES:
        if re.fullmatch(ours, name):
            return re.sub(ours, theirs, name)
    raise ValueError(f"the release has no counterpart of {name!r}")


def openai_state_from_open_clip(model: nn.Module) -> dict[str, Tensor]:
    """State dict of an open_clip CLIP in the layout of OpenAI's (and the release's) CLIP.

    With a ViT, built-in text tower and QuickGELU the two layouts have the same keys and shapes;
    what the layout cannot express is refused rather than dropped.

    Raises:
        ValueError: the model computes something that OpenAI's CLIP cannot.
    """
    towers = (model.transformer, model.visual.transformer)
    for block in (block for tower in towers for block in tower.resblocks):
        if type(block.mlp.gelu).__name__ != "QuickGELU":
            raise ValueError("OpenAI's CLIP uses QuickGELU; build the model with quick_gelu=True")
        if block.attn.embed_dim // block.attn.num_heads != 64:
            raise ValueError("the release's loader assumes attention heads of width 64")
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    layout = re.compile(
        r"(visual\.)?(positional_embedding|transformer\.resblocks\.\d+\."
        r"(ln_[12]\.(weight|bias)|attn\.(in_proj_|out_proj\.)(weight|bias)"
        r"|mlp\.c_(fc|proj)\.(weight|bias)))"
        r"|visual\.(class_embedding|conv1\.weight|ln_(pre|post)\.(weight|bias)|proj)"
        r"|token_embedding\.weight|ln_final\.(weight|bias)|text_projection|logit_scale"
    )
    foreign = [name for name in state if not layout.fullmatch(name)]
    if foreign:
        raise ValueError(f"not part of OpenAI's layout: {', '.join(foreign)}")
    return state


def run_release(
    peer_dir: Path,
    clip_openai_state: dict[str, Tensor],
    state: dict[str, Tensor],
    images: Tensor,
    domain_features: Tensor,
    labels: Tensor,
    classnames: list[str],
    n_ctx: int,
    depth: int,
    noise: Tensor | None = None,
) -> dict[str, Tensor | dict[str, Tensor]]:
    """Return logits, loss and gradients of the release on given weights and inputs.

    Args:
        peer_dir: checkout of the release.
        clip_openai_state: CLIP's weights (`openai_state_from_open_clip`). The release hard-codes
            the widths 512 (text) and 768 (vision); layers and image size are free.
        state: learnable tensors under the names of `naive_reference`, fusion "sum".
        images: (B, 3, H, W).
        domain_features: (B, 512), the mean of the domain encoder's tokens.
        labels: (B,) long.
        classnames: K names; the release's prompts are "a photo of a NAME.".
        n_ctx: context length, at most 4 (above, the release's prompt has other words).
        depth: prompt depth J.
        noise: *standard normal* numbers (B, 512), which the release multiplies by the mean over
            all of `domain_features`; None for no noise.

    Returns:
        {"logits": (B, K), "loss": (), "grads": {our name: gradient of the loss}}.

    Raises:
        RuntimeError: the release failed; the message contains the end of its error output.
    """
    assert n_ctx <= len(CONTEXT_WORDS.split()), "the release would build other prompts"
    noise = torch.zeros(len(images), 512) if noise is None else noise
    tensors = {f"clip.{name}": tensor for name, tensor in clip_openai_state.items()}
    tensors |= {f"state.{release_name(name)}": tensor for name, tensor in state.items()}
    tensors |= {"images": images, "features": domain_features, "labels": labels, "noise": noise}
    settings = {"classnames": classnames, "n_ctx": n_ctx, "depth": depth}

    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "given.safetensors"), Path(folder, "answer.safetensors")
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            given,
            metadata={"settings": json.dumps(settings)},
        )
        command = [sys.executable, "-B", __file__, str(peer_dir), str(given), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if done.returncode:
            raise RuntimeError(f"the release failed:\n{done.stderr[-4000:]}")
        results = load_file(answer)

    grads = {name: results[f"grad.{release_name(name)}"] for name in state}
    return {"logits": results["logits"], "loss": results["loss"], "grads": grads}


class _GivenTokens(nn.Module):
    """A stub domain encoder whose only token is the given pooled feature."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features.unsqueeze(1)

    def load_state_dict(self, state_dict, strict=True):
        """Ignore the weights: there is nothing to load."""


def _stub_missing_modules() -> None:
    """Stub the modules that the release imports and its repository lacks."""
    registry = SimpleNamespace(register=lambda: lambda cls: cls)
    unused = dict.fromkeys(
        [
            "compute_accuracy",
            "load_pretrained_weights",
            "load_checkpoint",
            "sam_model_registry",
            "build_optimizer",
            "build_lr_scheduler",
        ]
    )
    names = ("dassl", "dassl.engine", "dassl.metrics", "dassl.utils", "dassl.optim")
    names += ("segment_anything", "trainer.models_mae", "trainer.models_mae_vitae")
    for name in names:
        module = types.ModuleType(name)
        module.__dict__.update(unused, TRAINER_REGISTRY=registry, TrainerX=object)
        sys.modules[name] = module


def _identity(self, *args, **kwargs):
    return self


def _config(settings: dict, image_size: int) -> SimpleNamespace:
    """Return the config keys that the release's modules use."""
    maple = SimpleNamespace(
        N_CTX=settings["n_ctx"], CTX_INIT=CONTEXT_WORDS, PROMPT_DEPTH=settings["depth"]
    )
    trainer = SimpleNamespace(MAPLE=maple, COCOOP=SimpleNamespace(PREC="fp32"))
    return SimpleNamespace(TRAINER=trainer, INPUT=SimpleNamespace(SIZE=(image_size, image_size)))


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _load_exactly(module: nn.Module, weights: dict[str, Tensor], exempt: set[str]) -> None:
    """Load `weights`; every parameter but the exempt ones must be given, and nothing else."""
    missing, unexpected = module.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - exempt:
        raise RuntimeError(f"weights do not fit: missing {missing}, unexpected {unexpected}")


def _release_model(given: dict[str, Tensor], settings: dict) -> nn.Module:
    """Build the release's model around the given weights."""
    from clip.model import build_model
    from trainer import maple

    maple.models_mae.mae_vit_base_patch16 = lambda **kwargs: _GivenTokens(given["features"])
    # The release appends to a debug log under an absolute path: redirected to the null device.
    maple.open = lambda path, mode: open(os.devnull, mode)  # noqa: SIM115 (the release closes it)
    design = {"trainer": "MaPLe", "maple_length": settings["n_ctx"]}
    design |= dict.fromkeys(("vision_depth", "language_depth", "vision_ctx", "language_ctx"), 0)
    weights = _with_prefix(given, "clip.")
    clip = build_model(dict(weights), design)
    # Its loader silently falls back to a non-strict load: check that all weights fit.
    _load_exactly(clip, weights, exempt=set())

    config = _config(settings, image_size=clip.visual.input_resolution)
    with mock.patch("torch.load", return_value={"model": {}}):
        model = maple.CustomCLIP(config, settings["classnames"], clip)
    frozen = {"token_prefix", "token_suffix"}
    _load_exactly(model.prompt_learner, _with_prefix(given, "state."), exempt=frozen)
    return model


def _worker(peer_dir: str, given_file: str, answer_file: str) -> None:
    """Evaluate the release on the tensors in `given_file`; write the results to `answer_file`."""
    sys.path[:0] = [peer_dir, str(Path(peer_dir, "QNN"))]
    _stub_missing_modules()
    for owner in (Tensor, nn.Module):
        owner.half = owner.cuda = _identity

    given = load_file(given_file)
    with safe_open(given_file, "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    model = _release_model(given, settings)
    with mock.patch("torch.randn", lambda shape: given["noise"].reshape(shape)):
        with torch.no_grad():
            logits = model.eval()(given["images"])
        loss = model.train()(given["images"], given["labels"])
        loss.backward()

    answer = {"logits": logits, "loss": loss.detach()}
    for name, parameter in model.prompt_learner.named_parameters():
        answer[f"grad.{name}"] = parameter.grad
    save_file(answer, answer_file)


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        _worker(*sys.argv[1:])
