"""Every YAML file of the trees merges as it does into the real Dassl's defaults."""

from __future__ import annotations

import json

import pytest

from tests.fallback.places import FALLBACK, finish, start
from tests.peers import peer

FILES = {"CoOp": 35, "multimodal-prompt-learning": 37, "PromptSRC": 38, "DPLQ": 52}


@pytest.mark.parametrize("name", FILES)
def test_every_config_merges_alike(name, tmp_path):
    tree, real = peer(name), peer("Dassl.pytorch")
    started = []
    for label, path in (("real", real), ("ours", FALLBACK)):
        out = tmp_path / f"{label}.json"
        started.append((start("peer_configs.py", tree, out, path=[path], cwd=tmp_path), out))
    results = []
    for process, out in started:
        finish(process)
        results.append(json.loads(out.read_text()))
    expected, got = results
    assert len(got) == FILES[name]
    assert got == expected
    failed = {path: text for path, text in got.items() if "\n" not in text}
    assert failed == {}
