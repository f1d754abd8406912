"""The engine `ray`: runs are tasks of a Ray cluster, on this machine or on many."""

from dplq.experiments.engines.ray.engine import open_engine
from dplq.experiments.engines.ray.settings import Settings

__all__ = ["Settings", "open_engine"]
