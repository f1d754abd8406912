"""CoCoOp's training step on BiomedCLIP: ours against BiomedCoOp's, unmodified.

    python benchmarks/biomedclip_step.py --peers FOLDER [--text-layers 12] [--classes 8] [--batch 4]

Theirs runs the text tower at 256 positions, image by image; ours at the length of the longest text,
all (image, class) pairs as one batch. Seconds are the process's CPU time, which other processes on
the machine disturb less than the clock's. Usage and results: benchmarks/README.md. Exit code 1: the
two do not compute the same.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks import step_meters as meters
from benchmarks.step_originals import _imports_from, _neutral
from benchmarks.step_sides import LogitsSide, Side, stepper
from dplq import load_backbone
from dplq.methods.cocoop import CoCoOpModel
from dplq.training.precision import resolve_precision
from tests.references.originals import JITTER
from tests.references.run_original import use_biomedclip
from tests.tiny import write_biomedclip_dir

WEIGHTS, WORDS, N_CTX, SEED = "open_clip_pytorch_model.bin", "a photo of a", 4, 0
LENGTH, EMBED_DIM, IMAGE_SIZE = 256, 512, 224
BERT_BASE = {"num_attention_heads": 12, "intermediate_size": 3072}
# Of five tokens, as the classes of BiomedCoOp's datasets have two to six.
NAMES = [
    f"{one} {two} area with stone"
    for one in ("dense", "normal", "kidney", "brain")
    for two in ("cyst", "tumor", "river", "lot")
]
SIDES = ("ours", "theirs")


class Theirs(Side):
    """CoCoOp of BiomedCoOp's tree on the same weights, with ours' learnable ones."""

    def __init__(self, tree: Path, folder: Path, names: Sequence[str], ours: CoCoOpModel) -> None:
        super().__init__("theirs")
        keys = SimpleNamespace(N_CTX=N_CTX, CTX_INIT=WORDS, PREC="fp32")
        size = SimpleNamespace(SIZE=(IMAGE_SIZE, IMAGE_SIZE))
        cfg = SimpleNamespace(TRAINER=SimpleNamespace(COCOOP=keys), INPUT=size)
        with _imports_from(tree), _neutral("cpu"), contextlib.redirect_stdout(io.StringIO()):
            use_biomedclip(str(folder))
            module = importlib.import_module("trainers.CoCoOp.cocoop_biomedclip")
            clip, _ = module.create_model_from_pretrained("hf-hub:microsoft/BiomedCLIP")
            self.model: nn.Module = module.CustomCLIP(cfg, list(names), clip.eval())
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("prompt_learner."))
        mine = ours.prompt_learner.state_dict()
        with torch.no_grad():
            for name, parameter in self.learnable().items():
                parameter.copy_(mine[our_name(name)])

    def train(self, mode: bool = True) -> Theirs:
        """Train the learner only, as its trainer does: the frozen BERT has dropout."""
        self.model.eval()
        self.model.get_submodule("prompt_learner").train(mode)
        return self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, or without labels the logits (B, K)."""
        with _neutral(images.device):
            return self.model(images) if labels is None else self.model(images, labels)


def our_name(name: str) -> str:
    """Return our name of one of their learnable parameters."""
    own = name.removeprefix("model.").removeprefix("prompt_learner.")
    return own.replace("linear1", "0").replace("linear2", "2")


def build(options: argparse.Namespace, folder: Path, sides: Sequence[str]) -> dict[str, Side]:
    """Build the sides on random weights, which the first call writes into `folder`."""
    torch.manual_seed(SEED)
    if not (folder / WEIGHTS).exists():
        sizes = {"width": 768, "layers": options.text_layers, "facts": BERT_BASE}
        sizes |= {"embed_dim": EMBED_DIM, "image_size": IMAGE_SIZE, "context_length": LENGTH}
        name = write_biomedclip_dir(folder, timm_model=options.image_tower, **sizes)
        random = load_backbone(name, pretrained=False, seed=SEED)
        state = random.clip.state_dict()
        for tensor in state.values():
            tensor += JITTER * torch.randn(tensor.shape)
        torch.save(state, folder / WEIGHTS)
    names = NAMES[: options.classes]
    clip = load_backbone(f"local-dir:{folder}")
    ours = CoCoOpModel(clip, names, seed=SEED, n_ctx=N_CTX, ctx_init=WORDS)
    built: dict[str, Side] = {"ours": LogitsSide("ours", ours)}
    if "theirs" in sides:
        built["theirs"] = Theirs(options.peers / "BiomedCoOp", folder, names, ours)
    return {name: built[name] for name in sides}


def inputs(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random images (B, 3, H, W) and labels (B,)."""
    generator = torch.Generator().manual_seed(SEED + 1)
    images = torch.randn(options.batch, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return images, torch.arange(options.batch) % options.classes


def differences(sides: dict[str, Side], images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the largest difference over the largest value: of logits, of gradients."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, side in sides.items():
        with torch.no_grad():
            logits = side.train(False)(images)
        side.train()(images, labels).backward()
        grads = {}
        for key, parameter in side.learnable().items():
            assert parameter.grad is not None
            grads[our_name(key)], parameter.grad = parameter.grad, None
        found[name] = {"logits": logits, **grads}
    errors = {
        key: float((value - found["theirs"][key]).abs().max() / found["theirs"][key].abs().max())
        for key, value in found["ours"].items()
    }
    return {"logits": errors.pop("logits"), "gradients": max(errors.values())}


def measure_memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the step's memory of the one side `options.memory_of`, in this process."""
    side = build(options, folder, [*SIDES[:1], options.memory_of])[options.memory_of]
    small = argparse.Namespace(**{**vars(options), "batch": 1})
    precision = resolve_precision("fp32", torch.device("cpu"))
    if options.memory_of == "ours":
        stepper(side, "train", *inputs(small), precision)()
    else:
        with torch.no_grad():
            side.train(False)(inputs(small)[0])
    step = stepper(side, "train", *inputs(options), precision)
    return meters.memory(step, torch.device("cpu"))


def child_memory(arguments: Sequence[str], folder: Path, side: str) -> dict[str, Any]:
    """Return the step's memory of a side, measured in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--folder", str(folder), "--memory-of", side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", type=Path, required=True, help="folder with BiomedCoOp")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--text-layers", type=int, default=12)
    parser.add_argument("--image-tower", default="vit_base_patch16_224", help="timm's name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-check", action="store_true", help="do not compare the two")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure; print one JSON object; return the exit code."""
    options = parse(arguments)
    if options.memory_of:
        print(json.dumps(measure_memory(options, options.folder)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder, device = options.folder or Path(place), torch.device("cpu")
        sides = build(options, folder, SIDES)
        images, labels = inputs(options)
        errors = {} if options.no_check else differences(sides, images, labels)
        precision = resolve_precision("fp32", device)
        steps = {n: stepper(s, "train", images, labels, precision) for n, s in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in SIDES}
        for name, step in [("", steps["ours"]), *options.repeats * list(steps.items())]:
            before = time.process_time()
            step()
            if name:  # the first one warms up
                times[name].append(time.process_time() - before)
        del sides, steps
        memory = {name: child_memory(arguments, folder, name) for name in SIDES}
    seconds = {name: median(found) for name, found in times.items()}
    result = {
        "sizes": {k: str(v) for k, v in vars(options).items() if k not in ("folder", "memory_of")},
        "differences": errors,
        "seconds": seconds,
        "times faster": seconds["theirs"] / seconds["ours"],
        "memory": memory,
        "times less memory": memory["theirs"]["step"] / memory["ours"]["step"],
    }
    print(json.dumps(result, indent=1))
    return int(errors.get("logits", 0) > 1e-4 or errors.get("gradients", 0) > 1e-3)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
