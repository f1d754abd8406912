"""Processes that share one run: torchrun starts them, each with a part of every batch.

The gradients of the learnable parameters, two million numbers at most, are added up by one
all-reduce of a flat tensor. `DistributedDataParallel` would do the same with a wrapper around the
model, which changes the names of its state and has to be told of frozen towers and unused
parameters; what it adds, an all-reduce in buckets beside the backward pass, pays for gradients of
a hundred megabytes, not of eight.

The numbers are those of one process with the whole batch. The losses are means over the images, so
each process weights its loss by its share of the batch (`weighted`); a term that no image decides
then counts once. What couples the images of a batch is computed of the whole batch (`batch_mean`),
and random numbers are drawn for all of its images by every process (`current_part`).

The first process alone prints and writes. Everything here does nothing in a run of one process.
"""

from __future__ import annotations

from dplq.training.distributed.batch import (
    Part,
    batch_mean,
    current_part,
    own_part,
    own_rows,
    step_of,
    weighted,
    whole_means,
)
from dplq.training.distributed.ending import (
    leave,
    message_of_others,
    quiet_but_main,
    reports_error,
)
from dplq.training.distributed.processes import (
    ProcessLost,
    add_up,
    add_up_gradients,
    by_main,
    connect,
    copy_from_main,
    gather,
    is_main,
    join,
    main_first,
    rank,
    refuse_distributed,
    refuse_unconnected,
    wait_for_all,
    world_size,
)

__all__ = [
    "Part",
    "ProcessLost",
    "add_up",
    "add_up_gradients",
    "batch_mean",
    "by_main",
    "connect",
    "copy_from_main",
    "current_part",
    "gather",
    "is_main",
    "join",
    "leave",
    "main_first",
    "message_of_others",
    "own_part",
    "own_rows",
    "quiet_but_main",
    "rank",
    "refuse_distributed",
    "refuse_unconnected",
    "reports_error",
    "step_of",
    "wait_for_all",
    "weighted",
    "whole_means",
    "world_size",
]
