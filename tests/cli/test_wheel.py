"""The built wheel in an environment of its own, outside any checkout and without network."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv

import pytest

from tests.packaged import build_wheel

OURS = ("PYTHONPATH", "DPLQ_CACHE", "DPLQ_DASSL", "DPLQ_SETTINGS", "HF_HOME", "VIRTUAL_ENV")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel."""
    built, _ = build_wheel(tmp_path_factory.mktemp("wheel"))
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; other packages are those of this one.

    Returns:
        A function that runs a command there, with a HOME and a current folder of its own.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    python = folder / "venv/bin/python"
    install = ["--python", str(python), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    # plain paths: the files *.pth there, such as that of this checkout, are not followed
    places = [*site.getsitepackages(), *filter(lambda p: "site-packages" in p, sys.path)]
    (packages / "others.pth").write_text("\n".join(dict.fromkeys(places)))
    for name in ("home", "work"):
        (folder / name).mkdir()
    variables = {key: value for key, value in os.environ.items() if key not in OURS}
    variables |= {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        return subprocess.run(
            [str(folder / "venv/bin/dplq"), *arguments],
            cwd=folder / "work",
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    run.folder = folder
    return run


@pytest.mark.slow
def test_the_demo_ends_in_its_table(environment):
    quick = ["--", "OPTIM.MAX_EPOCH", "1"]
    done = environment("demo", "--seeds", "1", *quick)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    row = done.stdout[done.stdout.rindex("trainer  ") :].splitlines()[2].split()
    assert row[:5] == ["QuaternionPrompt", "demo", "16", "DemoAerial", "1"]
    assert float(row[5]) > 30
    out = environment.folder / "work/output/demo"
    assert len(list(out.rglob("results.json"))) == 2
    assert f"\n  dplq report {out}\n" in done.stdout
    again = environment("demo", "--seeds", "1", *quick)
    assert again.stdout.count("already finished: ") == 2


@pytest.mark.slow
def test_the_readme_without_network(environment):
    """The commands of "Your own images", with ViT-B/16: what is missing is said."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("oak", "birch"):
        folder = environment.folder / "work/my_images" / name
        folder.mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(0, 255, (40, 40, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{index}.png")
    flags = ["--trainer", "QuaternionPrompt", "--root", "my_images", "--seed", "1"]
    flags += ["--output-dir", "output/mine"]
    flags += ["--dataset-config-file", "configs/datasets/own_images.yaml"]
    config = "configs/trainers/QuaternionPrompt/vit_b16_c2_ep15_batch4_2ctx.yaml"
    done = environment("train", *flags, "--config-file", config, "DATASET.NUM_SHOTS", "4")
    assert done.returncode == 2
    clip, domain = done.stderr.strip().splitlines()
    assert "cannot get the weights of 'ViT-B/16'" in clip
    assert "MODEL.INIT_WEIGHTS" in clip
    assert "'mae_vit_base_patch16' has no weights to download" in domain
    assert not (environment.folder / "work/output/mine").exists()
