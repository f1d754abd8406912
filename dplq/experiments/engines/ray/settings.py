"""Options of the engine `ray`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True):
    """Options of the engine.

    Attributes:
        address: of a running cluster: "auto", HOST:PORT or ray://HOST:PORT; None: one of this
            machine, which ends with the engine.
        jobs: how many runs are handed to Ray at once; None: as many as fit.
        cpus: CPUs of a run.
        gpus: GPUs of a run, or the share of one; None: 1 where there are any.
        retries: how often a run is started again whose worker or node was lost.
    """

    address: str | None = None
    jobs: Annotated[int, Meta(ge=1)] | None = None
    cpus: Annotated[float, Meta(gt=0)] = 1
    gpus: Annotated[float, Meta(ge=0)] | None = None
    retries: Annotated[int, Meta(ge=0)] = 3
