"""Run train.py in a child of a fork server that has imported the heavy modules."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.tiny import tiny_clip_config, write_clip_dir

PROJECT = Path(__file__).resolve().parent.parent
PRELOAD = ["tests.runner", "train", "tests.preloaded"]
CONFIG = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 2
  TEST:
    BATCH_SIZE: 8
  NUM_WORKERS: 0
INPUT:
  SIZE: (32, 32)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  NAME: "sgd"
  LR: 0.0035
  MAX_EPOCH: 3
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
TRAIN:
  PRINT_FREQ: 1
MODEL:
  BACKBONE:
    NAME: "{backbone}"
    PRETRAINED: False
DOMAIN:
  ENCODER: "clip"
TRAINER:
  QUATERNIONPROMPT:
    N_CTX: 2
    PROMPT_DEPTH: 2
    PREC: "fp32"
"""
DATASET_CONFIG = 'DATASET:\n  NAME: "OwnImages"\n'
CLASSES = ("forest", "river", "parking_lot", "storage_tank")


@dataclass
class Finished:
    """A finished run: exit code (negative: the signal that killed it) and what it printed."""

    code: int
    out: str
    err: str


def make_project(folder: Path, images: int = 12) -> list[str]:
    """Write a small dataset of class folders, a tiny CLIP and configs; return train.py's flags."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(images):
            pixels = random.integers(0, 128, (32, 32, 3)) + 30 * label
            Image.fromarray(pixels.astype("uint8")).save(folder / "data" / name / f"{index}.png")
    backbone = write_clip_dir(folder / "clip", tiny_clip_config(vision_layers=2, text_layers=2))
    (folder / "trainer.yaml").write_text(CONFIG.format(backbone=backbone))
    (folder / "dataset.yaml").write_text(DATASET_CONFIG)
    return [
        *("--root", str(folder / "data"), "--trainer", "QuaternionPrompt", "--seed", "1"),
        *("--config-file", str(folder / "trainer.yaml")),
        *("--dataset-config-file", str(folder / "dataset.yaml")),
    ]


def train(
    log: Path, arguments: list[str], before: Callable[..., None] | None = None, *given: object
) -> Finished:
    """Run ``train.py ARGUMENTS`` in a child process, after `before(*given)`.

    Args:
        log: a file name; stdout and stderr go to ``<log>.out`` and ``<log>.err``.
        arguments: the command line; without --output-dir the run goes to ``<log>-output``, not to
            the checkout, where several tests at once would refuse each other.
        before: a module-level function, to break things in the child.
        *given: its arguments.
    """
    if "--output-dir" not in arguments:
        arguments = ["--output-dir", f"{log}-output", *arguments]
    return start(log, arguments, before, *given).wait()


@dataclass
class Started:
    """A run in a child process, which may go on."""

    child: BaseProcess
    log: Path

    def wait(self, seconds: float | None = None) -> Finished:
        """Return how it ended; after so many seconds it is killed."""
        self.child.join(seconds)
        if self.child.is_alive():
            self.child.kill()
            self.child.join()
        code = self.child.exitcode
        assert code is not None
        return Finished(code, *(Path(f"{self.log}.{kind}").read_text() for kind in ("out", "err")))


def start(
    log: Path, arguments: list[str], before: Callable[..., None] | None = None, *given: object
) -> Started:
    """Start ``train.py ARGUMENTS`` in a child process, as `train` does, and do not wait for it."""
    return Started(fork(_child, str(log), arguments, before, given), log)


def fork(target: Callable[..., object], *given: object) -> BaseProcess:
    """Start `target(*given)` in a child of the fork server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=target, args=given)
    child.start()
    return child


def compute_as_a_process() -> None:
    """In a child of the fork server: compute, and start processes, as a process of its own."""
    import torch

    torch.set_num_threads(1)
    # A child's is the fork server's: each worker of a loader would start one, and import all again.
    multiprocessing.set_start_method(None, force=True)


def train_together(
    log: Path,
    arguments: list[str],
    processes: int = 2,
    before: Callable[..., None] | None = None,
    *given: object,
) -> list[Finished]:
    """Run ``train.py ARGUMENTS`` in several child processes that share it, as torchrun does.

    Args:
        log: as for `train`, with the number of a process behind it.
        arguments: the command line.
        processes: how many.
        before: called as ``before(rank, *given)`` in each child.
        *given: as for `train`.
    """
    from torch.distributed import TCPStore

    # torchrun, too, has the store, which outlives every process of the run.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    children = []
    for rank in range(processes):
        own = shared | {"RANK": rank, "LOCAL_RANK": rank}
        first = (before, rank, *given) if before else (None,)
        children.append(start(Path(f"{log}{rank}"), arguments, _set_environment, own, *first))
    finished = [child.wait(120) for child in children]
    del store
    return finished


def _set_environment(
    variables: dict[str, object], before: Callable[..., None] | None, *given: object
) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})
    if before is not None:
        before(*given)


def _child(log: str, arguments: list[str], before: Callable | None, given: tuple) -> None:
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(PROJECT)
    import train as script

    compute_as_a_process()
    if before is not None:
        before(*given)
    sys.argv = ["train.py", *arguments]
    code = script.main()
    sys.stdout.flush()
    os._exit(code)
