"""Engine of a Slurm cluster, by submitit: jobs are elements of job arrays."""

from dplq.experiments.engines.slurm.engine import open_engine
from dplq.experiments.engines.slurm.settings import Settings

__all__ = ["Settings", "open_engine"]
