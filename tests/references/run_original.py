"""Run the trainers of an unmodified tree step by step, on the CPU in fp32; return their results.

`run_trainers` uses a separate process (this file run as a script), so that the tests' process stays
clean. Inputs are CLIP's weights (OpenAI's names), and for each run ``images`` (steps, B, 3, H, W),
``labels`` (steps, B) and ``state.*`` (all learnable weights under the tree's names; without any,
its own initial values plus noise). Each result contains

* ``state.*``: the learnable weights before all steps;
* ``logits``: of the first batch, in evaluation, before any step; ``after``: the same after all;
* ``grad.*``: of the first step; ``first.*``: the learnable weights after it;
* ``last.*``: the learnable weights after all epochs;
* ``loss`` (steps,): the loss that the tree logs in each step, the first if there are several;
* ``terms.*``: the values of the functions of torch.nn.functional that its first step calls.

Patched: CLIP's download (a file with the given weights), ``.half()`` and ``.cuda()`` (do nothing),
BiomedCLIP's download (a folder), an argument that torch's schedulers no longer have and a method
that transformers' tokenizers no longer have, `pkg_resources`, which setuptools no longer has,
and for DCPL the domain encoder, which was never published (replaced by `domain_features`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import packaging.version
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

FALLBACK = Path(__file__).resolve().parents[2] / "dplq" / "_fallback"
TERMS = ("cross_entropy", "l1_loss", "kl_div")
FEATURE_DIM = 512
MOVE = 0.02  # standard deviation of the noise added to a tree's own initial weights


def domain_features(images: Tensor) -> Tensor:
    """Return stub domain features (B, 512), different for every image."""
    return 0.3 + images.flatten(1)[:, :FEATURE_DIM]


@dataclass
class Run:
    """One run of a tree's trainer; a step for each batch.

    Attributes:
        module: for example ``trainers.promptsrc``.
        cls: the trainer's name there.
        given: images, labels and state.*, see above.
        settings: {"trainer": {config node: {key: value}}, "classnames", "image_size", "lr",
            "epochs", "seed"}; before step s (from 0) torch is seeded with seed + 1 + s, before
            the evaluation with seed. "optim": more of OPTIM's keys; "dataset": DATASET.NAME;
            "loss": the node LOSS; "save": the folder in which the trainer's own `save_model`
            writes in the end; "biomedclip": the folder of a BiomedCLIP, in place of its download.
        clip: CLIP's weights, if not those that all runs share.
    """

    module: str
    cls: str
    given: dict[str, Tensor]
    settings: dict
    clip: dict[str, Tensor] | None = None


def run_trainers(
    tree: Path, clip: dict[str, Tensor], runs: list[Run], dassl: Path = FALLBACK
) -> list[dict[str, Tensor]]:
    """Run a tree's trainers one after the other; return their results.

    Args:
        tree: checkout.
        clip: CLIP's weights, for runs without their own.
        runs: what to run.
        dassl: the folder that contains the package `dassl`.

    Raises:
        AssertionError: the tree failed; the message contains the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        clips = {id(weights): weights for weights in (clip, *(run.clip for run in runs)) if weights}
        for key, weights in clips.items():
            torch.save(weights, Path(folder, f"{key}.clip"))
        for number, run in enumerate(runs):
            tensors = {name: tensor.detach().contiguous() for name, tensor in run.given.items()}
            what = {"module": run.module, "cls": run.cls, "settings": json.dumps(run.settings)}
            what["clip"] = str(Path(folder, f"{id(run.clip or clip)}.clip"))
            save_file(tensors, Path(folder, f"{number}.given"), metadata=what)
        command = [sys.executable, "-B", __file__, str(tree), str(dassl), folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
        return [load_file(Path(folder, f"{number}.answer")) for number in range(len(runs))]


class _DomainEncoder(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return domain_features(images).unsqueeze(1)  # one token, which is its own mean

    def load_state_dict(self, state_dict, strict=True):
        """Ignore the weights: there is nothing to load."""


def _neutralise() -> None:
    for owner in (Tensor, nn.Module):
        owner.half = owner.cuda = lambda self, *args, **kwargs: self
    begin = LRScheduler.__init__
    LRScheduler.__init__ = lambda self, optimizer, last_epoch=-1, *verbose: begin(
        self, optimizer, last_epoch
    )
    load = torch.load
    # An absolute path of the authors' machine.
    torch.load = lambda path, *a, **k: (
        {"model": {}} if str(path).startswith("/code/") else load(path, *a, **k)
    )
    encoder = types.ModuleType("trainers.models_mae")
    encoder.mae_vit_base_patch16 = lambda **kwargs: _DomainEncoder()
    sys.modules["trainers.models_mae"] = sys.modules["trainers.models_mae_vitae"] = encoder
    resources = types.ModuleType("pkg_resources")
    resources.packaging = packaging
    sys.modules.setdefault("pkg_resources", resources)


@contextlib.contextmanager
def _recorded(terms: dict[str, Tensor]) -> Iterator[None]:
    """Record the return values of torch.nn.functional's loss functions in `terms`."""

    def noted(name: str, original: Callable) -> Callable:
        def call(*args, **kwargs):
            value = original(*args, **kwargs)
            number = sum(key.startswith(f"terms.{name}.") for key in terms)
            terms[f"terms.{name}.{number}"] = value.detach().clone()
            return value

        return call

    with contextlib.ExitStack() as stack:
        for name in TERMS:
            stack.enter_context(mock.patch.object(F, name, noted(name, getattr(F, name))))
        yield


def use_biomedclip(folder: str) -> None:
    """Give the tree's open_clip a BiomedCLIP from a folder in place of the hub's."""
    import transformers

    factory = importlib.import_module("open_clip.src.open_clip.factory")
    content = json.loads(Path(folder, "open_clip_config.json").read_text())
    text = content["model_cfg"]["text_cfg"]
    text["hf_model_name"] = text["hf_tokenizer_name"] = folder
    weights = Path(folder, "open_clip_pytorch_model.bin")
    factory.download_pretrained_from_hf = lambda *args, **kwargs: str(weights)
    factory._get_hf_config = lambda *args, **kwargs: json.loads(json.dumps(content))
    # A method's name before transformers 5.
    base = transformers.PreTrainedTokenizerBase
    base.batch_encode_plus = lambda self, *args, **kwargs: self(*args, **kwargs)


def config(settings: dict):
    """Dassl's config with the settings of `Run`."""
    from dassl.config import get_cfg_default
    from yacs.config import CfgNode

    cfg = get_cfg_default()
    for node, keys in settings["trainer"].items():
        cfg.TRAINER[node] = CfgNode(keys)
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE = "ViT-B/16", (settings["image_size"],) * 2
    cfg.OPTIM.NAME, cfg.OPTIM.LR = "sgd", settings["lr"]
    cfg.OPTIM.MAX_EPOCH = settings["epochs"]
    cfg.OPTIM.update(settings.get("optim", {}))
    cfg.DATASET.NAME = settings.get("dataset", "")
    cfg.LOSS = CfgNode(settings.get("loss", {}))
    return cfg


def bare_trainer(cls: type, cfg, classnames: list[str]):
    """A Dassl trainer without data, ready for its own `build_model`."""
    trainer = cls.__new__(cls)
    base = next(c for c in cls.__mro__ if c.__name__ == "TrainerBase")
    base.__init__(trainer)
    trainer.cfg, trainer.device = cfg, torch.device("cpu")
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=classnames))
    trainer.check_cfg(cfg)
    return trainer


def _clones(tensors, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": t.detach().clone() for name, t in tensors}


def _set_state(learnable: dict[str, Tensor], given: dict[str, Tensor], seed: int) -> None:
    state = {k.removeprefix("state."): v for k, v in given.items() if k.startswith("state.")}
    assert not state or state.keys() == learnable.keys(), sorted(state.keys() ^ learnable.keys())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in learnable.items():
            moved = parameter + MOVE * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(state.get(name, moved))


def _evaluate(trainer, images: Tensor, seed: int) -> Tensor:
    trainer.model.eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        return trainer.model_inference(images)


def _run(module: str, cls: str, given: dict[str, Tensor], settings: dict) -> dict[str, Tensor]:
    """Carry out one `Run`."""
    kind, seed = getattr(importlib.import_module(module), cls), settings["seed"]
    trainer = bare_trainer(kind, config(settings), settings["classnames"])
    torch.manual_seed(seed)
    trainer.build_model()
    if not hasattr(trainer, "model"):  # nothing is learned
        with torch.no_grad():
            return {"logits": trainer.model_inference(given["images"][0])}
    learnable = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    _set_state(learnable, given, seed)
    answer, losses = _clones(learnable.items(), "state"), []
    answer["logits"] = _evaluate(trainer, given["images"][0], seed)
    trainer.set_model_mode("train")  # what the tree registers: a frozen BERT has dropout
    # The schedule is not compared: all steps use settings["lr"].
    trainer.update_lr = lambda *names: None
    steps, trainer.num_batches = len(given["images"]), len(given["images"]) // settings["epochs"]
    for step in range(steps):
        trainer.batch_idx = step % trainer.num_batches
        torch.manual_seed(seed + 1 + step)
        batch = {"img": given["images"][step], "label": given["labels"][step]}
        terms: dict[str, Tensor] = {}
        with _recorded(terms):
            logged = trainer.forward_backward(batch)
        losses.append(next(value for name, value in logged.items() if name.endswith("loss")))
        if not step:
            answer |= _clones(((n, p.grad) for n, p in learnable.items()), "grad")
            answer |= _clones(learnable.items(), "first") | terms
    answer |= _clones(learnable.items(), "last") | {"loss": torch.tensor(losses)}
    answer["after"] = _evaluate(trainer, given["images"][0], seed)
    if "save" in settings:
        trainer.save_model(settings["epochs"] - 1, settings["save"])
    return answer


def main(tree: str, dassl: str, folder: str) -> None:
    """Carry out the runs that `run_trainers` wrote into `folder`."""
    sys.path[:0] = [tree, dassl]
    _neutralise()
    from clip import clip

    for path in Path(folder).glob("*.given"):
        with safe_open(path, "pt") as file:
            what = file.metadata()
        # The tree's CLIP, or one that the trainer brings along.
        for module in (clip, getattr(importlib.import_module(what["module"]), "clip", clip)):
            module._download = lambda *args, _file=what["clip"]: _file
        settings = json.loads(what["settings"])
        if "biomedclip" in settings:
            use_biomedclip(settings["biomedclip"])
        answer = _run(what["module"], what["cls"], load_file(path), settings)
        tensors = {name: tensor.contiguous() for name, tensor in answer.items()}
        save_file(tensors, path.with_suffix(".answer"))


if __name__ == "__main__":
    main(*sys.argv[1:])
