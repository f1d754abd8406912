"""Run a tree's unmodified train.py, several times, with a tiny random CLIP on a CPU.

``python run_peer.py TREE WORK JOBS.json``; JOBS is a list of argument lists for train.py. What is
changed: CLIP's download returns a file with random weights of the tree's own architecture (two
layers; the trees want width 768 for vision and 512 for text), and the hard-wired ``.half()`` and
``.cuda()`` calls do nothing.
"""

from __future__ import annotations

import inspect
import json
import runpy
import sys
from pathlib import Path

import torch


def neutralise_casts() -> None:
    for cls in (torch.Tensor, torch.nn.Module):
        cls.half = cls.cuda = lambda self, *args, **kwargs: self


def write_tiny_clip(path: Path) -> None:
    from clip.model import CLIP

    torch.manual_seed(0)
    plain = {"trainer": "CoOp"}
    for part in ("vision", "language"):
        plain[f"{part}_depth"] = plain[f"{part}_ctx"] = 0
    extra = [plain] if "design_details" in inspect.signature(CLIP.__init__).parameters else []
    model = CLIP(512, 32, 2, 768, 16, 77, 49408, 512, 8, 2, *extra)
    torch.save(model.state_dict(), path)


def main(tree: Path, work: Path, jobs: list[list[str]]) -> None:
    sys.path.insert(0, str(tree))
    neutralise_casts()
    from clip import clip

    weights = work / "tiny_clip.pt"
    write_tiny_clip(weights)
    clip._download = lambda *args, **kwargs: str(weights)
    console = sys.stdout
    for job in jobs:
        sys.argv = ["train.py", *job]
        runpy.run_path(str(tree / "train.py"), run_name="__main__")
        sys.stdout = console
    weights.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
