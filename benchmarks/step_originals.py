"""The originals, unmodified, in this process: the release of DPLQ, CoCoOp and MaPLe.

Their packages have the same names as each other's and as ours (`clip`, `trainers`), so they are
imported one at a time and removed from `sys.modules` afterwards; models already built keep working.
Patched from outside: ``.half()`` does nothing, ``.cuda()`` moves to the device in use, modules that
their repositories lack are stubbed (see `tests.references.authors_release`), and the release of
DPLQ, whose domain encoder was never published, uses ours.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.step_sides import Side
from dplq import QuaternionPromptCLIP
from tests.references import authors_release as release

TREES = {"dplq": "DPLQ", "cocoop": "CoOp", "maple": "multimodal-prompt-learning"}
SHADOWED = ("clip", "core_qnn", "dassl", "datasets", "segment_anything", "trainer", "trainers")
SHADOWED += ("open_clip",)  # BiomedCoOp's tree has a folder of that name


class Original(Side):
    """An original's `CustomCLIP`, built anew for each set of classes.

    Args:
        name: "dplq", "cocoop" or "maple".
        tree: its checkout.
        ours: source of CLIP's weights, the domain encoder and, for DPLQ, the learnable weights.
        depth: prompt depth.
    """

    def __init__(self, name: str, tree: Path, ours: QuaternionPromptCLIP, depth: int) -> None:
        texts_per_image = name != "maple"
        super().__init__(name, texts_per_image=texts_per_image)
        self.tree, self.depth, self._ours = tree, depth, (ours,)  # a tuple: not a submodule

    def set_classes(self, names: Sequence[str]) -> None:
        """Build the model for these classes."""
        (ours,) = self._ours
        self.model = None  # frees the previous model
        device = ours.clip.logit_scale.device
        with _imports_from(self.tree), _neutral("cpu"), contextlib.redirect_stdout(io.StringIO()):
            self.model = self._build(ours, list(names)).to(device)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("prompt_learner."))

    def _build(self, ours: QuaternionPromptCLIP, names: list[str]) -> nn.Module:
        weights = release.openai_state_from_open_clip(ours.clip.clip)
        weights = {name: tensor.cpu() for name, tensor in weights.items()}
        n_ctx = ours.n_ctx
        if self.name == "dplq":
            given = {f"clip.{name}": tensor for name, tensor in weights.items()}
            for name, tensor in ours.prompt_learner.state_dict().items():
                given[f"state.{release.release_name(name)}"] = tensor.cpu()
            given["features"] = torch.zeros(1, ours.settings["domain_dim"])
            settings = {"classnames": names, "n_ctx": n_ctx, "depth": self.depth}
            model = release._release_model(given, settings)
            model.remote_model = _OneToken(ours.domain)
            return model
        from clip.model import build_model

        module = importlib.import_module(f"trainers.{self.name}")
        design = {"trainer": "MaPLe", "maple_length": n_ctx}
        design |= dict.fromkeys(("vision_depth", "language_depth", "vision_ctx", "language_ctx"), 0)
        clip = build_model(weights, *([design] if self.name == "maple" else []))
        keys = {"CTX_INIT": release.CONTEXT_WORDS, "PREC": "fp32", "PROMPT_DEPTH": self.depth}
        trainer = SimpleNamespace(
            MAPLE=SimpleNamespace(N_CTX=n_ctx, **keys), COCOOP=SimpleNamespace(N_CTX=4, **keys)
        )
        size = SimpleNamespace(SIZE=(ours.clip.image_size,) * 2)
        cfg = SimpleNamespace(TRAINER=trainer, INPUT=size)
        return module.CustomCLIP(cfg, names, clip.float())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, or without labels the logits (B, K)."""
        with _neutral(images.device):
            return self.model(images) if labels is None else self.model(images, labels)

    def quiet_logits(self, images: Tensor) -> Tensor:
        """Return evaluation logits without the noise that DPLQ's release draws even there."""
        with mock.patch("torch.randn", torch.zeros), torch.no_grad():
            return self.eval()(images)


class _OneToken(nn.Module):
    """Our domain encoder with the release's interface: tokens (B, 1, d_f) to average."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images).unsqueeze(1)


@contextlib.contextmanager
def _imports_from(tree: Path) -> Iterator[None]:
    """Import the tree's packages instead of ours; restore `sys.modules` afterwards."""

    def shadowed() -> dict[str, object]:
        return {n: m for n, m in sys.modules.items() if n.split(".")[0] in SHADOWED}

    path, ours = list(sys.path), shadowed()
    for name in ours:
        del sys.modules[name]
    release._stub_missing_modules()
    sys.path[:0] = [str(tree), str(tree / "QNN")]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in shadowed():
            del sys.modules[name]
        sys.modules.update(ours)


@contextlib.contextmanager
def _neutral(device: torch.device | str) -> Iterator[None]:
    """Disable ``.half()`` and let ``.cuda()`` move tensors to the device in use."""

    def same(self, *args, **kwargs):
        return self

    def moved(self, *args, **kwargs):
        return self.to(device)

    with contextlib.ExitStack() as stack:
        for owner, cuda in ((Tensor, moved), (nn.Module, same)):
            stack.enter_context(mock.patch.object(owner, "half", same))
            stack.enter_context(mock.patch.object(owner, "cuda", cuda))
        if torch.device(device).type == "meta":  # DPLQ's release logs values, and there are none
            stack.enter_context(mock.patch.object(Tensor, "cpu", lambda t: torch.zeros(t.shape)))
        yield
