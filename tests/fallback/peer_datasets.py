"""Import all dataset files of a tree and build some on look-alikes.

``python peer_datasets.py TREE DATA OUT.json NAME...`` writes the modules that fail to import, the
number of registered datasets, and for each NAME the images of each part.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.utils import set_random_seed


def parts_of(name: str, root: str, subsample: str) -> dict:
    """Build a dataset with two shots; return its class names and the files of each part."""
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.SEED = root, name, 2, 1
    cfg.DATASET.SUBSAMPLE_CLASSES = subsample
    set_random_seed(1)
    data = build_dataset(cfg)
    files = {
        part: [[Path(item.impath).name, item.label] for item in getattr(data, part)]
        for part in ("train_x", "val", "test")
    }
    return {"classnames": data.classnames, **files}


def main(tree: Path, root: str, out: Path, names: list[str]) -> None:
    sys.path.insert(0, str(tree))
    failed = []
    for path in sorted((tree / "datasets").glob("*.py")):
        try:
            importlib.import_module(f"datasets.{path.stem}")
        except Exception as error:
            failed.append(f"{path.stem}: {type(error).__name__}: {error}")
    result = {"failed": failed, "registered": len(DATASET_REGISTRY.registered_names())}
    # all classes first: it makes the split and the sample; the second call reads them
    for name in names:
        result[name] = {half: parts_of(name, root, half) for half in ("all", "base", "new")}
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
