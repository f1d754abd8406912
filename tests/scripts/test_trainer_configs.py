"""configs/trainers: the files that the scripts use exist, and all of them load."""

import subprocess
from pathlib import Path

import pytest
import yaml

from dplq.host.config import extend_cfg, merge_file
from dplq.host.dassl import ensure_dassl

ensure_dassl()
from dassl.config import get_cfg_default  # noqa: E402

PROJECT = Path(__file__).resolve().parents[2]


def test_every_trainer_has_the_configs_that_the_scripts_take():
    script = """source scripts/trainers.sh
    for TRAINER in $ALL_TRAINERS; do
        for PROTOCOL in base2new few_shot transfer; do
            for SHOTS in 1 2 4 8 16; do echo "$TRAINER/$(default_config)"; done
        done
        echo "$TRAINER/demo"
    done"""
    done = subprocess.run(
        ["bash", "-ec", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    wanted = {f"configs/trainers/{name}.yaml" for name in done.stdout.split()}
    assert wanted
    assert [name for name in wanted if not (PROJECT / name).is_file()] == []


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "configs/trainers").glob("*/*.yaml")), ids=name_of
)
def test_trainer_configs_load_and_set_their_own_keys_only(path):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_file(cfg, str(path))
    content = yaml.safe_load(path.read_text())
    assert list(content["TRAINER"]) == [path.parent.name.upper().replace("CLIP2", "CLIP")]
    is_demo = path.stem == "demo"
    expected = ("demo", (64, 64)) if is_demo else ("ViT-B/16", (224, 224))
    assert expected == (cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE)
