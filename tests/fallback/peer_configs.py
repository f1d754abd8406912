"""Merge a tree's YAML files into the defaults of whichever Dassl is importable.

``python peer_configs.py TREE OUT.json`` extends the defaults by the tree's own `extend_cfg`, taken
out of its train.py without running the rest, and writes {file: merged config or error}.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

from dassl.config import get_cfg_default


def extend_cfg_of(tree: Path):
    """Return the function `extend_cfg` of a train.py."""
    module = ast.parse((tree / "train.py").read_text())
    module.body = [node for node in module.body if getattr(node, "name", "") == "extend_cfg"]
    scope: dict = {}
    exec(compile(module, "train.py", "exec"), scope)
    return scope["extend_cfg"]


def merged(path: Path, extend_cfg) -> str:
    """Return the merged config as text, or the kind of error."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    try:
        cfg.merge_from_file(str(path))
    except Exception as error:
        return type(error).__name__
    return str(cfg)


if __name__ == "__main__":
    tree = Path(sys.argv[1])
    extend = extend_cfg_of(tree)
    found = sorted(path for path in tree.rglob("*.yaml") if ".git" not in path.parts)
    results = {str(path.relative_to(tree)): merged(path, extend) for path in found}
    Path(sys.argv[2]).write_text(json.dumps(results))
