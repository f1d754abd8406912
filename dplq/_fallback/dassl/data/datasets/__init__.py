"""The dataset registry and the base classes of datasets."""

from yacs.config import CfgNode

from dassl.utils import Registry

from .base_dataset import DatasetBase, Datum

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> DatasetBase:
    """Build the dataset named by ``DATASET.NAME``."""
    announce = "Loading dataset" if cfg.VERBOSE else ""
    return DATASET_REGISTRY.build(cfg.DATASET.NAME, cfg, announce=announce)


__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]
