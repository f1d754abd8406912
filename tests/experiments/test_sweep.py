"""Sweep files: their combinations, exclusions, names of settings, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dplq.plugin  # noqa: F401  (finds a Dassl)
from dplq.errors import UserError
from dplq.experiments.requests.request import make_plan
from dplq.experiments.requests.sweep import read_sweep
from dplq.host.config import extend_cfg, merge_options
from dplq.io.protocols import CONFIGS

SMALL = """
protocols: few-shot
datasets: demo_aerial
trainers: [CoOp, maple]
shots: [1, 2]
seeds: [1, 2]
"""


@pytest.fixture
def sweep(tmp_path):
    def read(text, **given):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return read_sweep(path, tmp_path, **given)

    return read


def places(sweep, tmp_path):
    """Return trainer, shots, config's folder and seed of the runs."""
    runs = make_plan(sweep.requests).runs
    return [
        (run.trainer, run.shots, run.folder.parent.name, run.seed)
        for run in runs
        if run.folder.is_relative_to(tmp_path)
    ]


def test_a_small_sweep(sweep, tmp_path):
    read = sweep(SMALL)
    assert places(read, tmp_path) == [
        (trainer, shots, "demo", seed)
        for trainer in ("CoOp", "MaPLe")
        for shots in (1, 2)
        for seed in (1, 2)
    ]
    assert read.engine == ("local", {})
    run = make_plan(read.requests).runs[0]
    assert run.folder == tmp_path / "output/demo_aerial/shots_1/CoOp/demo/seed1"
    assert read.requests[0].data == tmp_path / "data"
    assert run.data is None, "a built-in dataset lies nowhere"


def test_defaults_are_those_of_the_protocols(sweep):
    read = sweep("protocols: [few_shot, compare]\ndatasets: [demo_aerial]\n")
    runs = make_plan(read.requests).runs
    curve = {(run.trainer, run.shots) for run in runs if run.classes == "all"}
    assert curve == {
        ("ZeroshotCLIP", 16),
        *(("QuaternionPrompt", shots) for shots in (1, 2, 4, 8, 16)),
    }
    assert len({run.trainer for run in runs if run.classes == "base"}) > 20
    assert {run.seed for run in runs} == {1, 2, 3}


def test_what_is_left_out(sweep, tmp_path):
    text = f"{SMALL}exclude:\n- {{trainer: coop, shots: [1]}}\n- {{trainer: MaPLe, seed: 2}}\n"
    assert places(sweep(text), tmp_path) == [
        *(("CoOp", 2, "demo", 1), ("CoOp", 2, "demo", 2)),
        *(("MaPLe", 1, "demo", 1), ("MaPLe", 2, "demo", 1)),
    ]


def test_what_is_left_out_by_the_name_of_plain_settings(sweep, tmp_path):
    """Settings of which nothing is a trainer's are the plain ones, by either name."""
    text = f"{SMALL}settings: {{plain: {{}}, wide: {{TRAINER.MAPLE.N_CTX: 4}}}}\nexclude: "
    assert {place[::2] for place in places(sweep(f"{text}[{{settings: plain}}]"), tmp_path)} == {
        ("MaPLe", "demo@wide")
    }
    assert {place[::2] for place in places(sweep(f"{text}[{{settings: wide}}]"), tmp_path)} == {
        *(("CoOp", "demo"), ("MaPLe", "demo")),
    }


@pytest.mark.parametrize(("shots", "there"), [("[1, 16]", False), ("[1, 2]", True)])
def test_a_trainer_without_training_images_is_left_out_by_its_own_shots(sweep, shots, there):
    text = SMALL.replace("maple", "ZeroshotCLIP").replace("[1, 2]", "[1, 2, 16]", 1)
    runs = make_plan(sweep(f"{text}exclude: [{{shots: {shots}}}]").requests).runs
    assert ({run.shots for run in runs if run.trainer == "ZeroshotCLIP"} == {16}) is there
    assert any(run.trainer == "CoOp" for run in runs)


def test_named_settings_have_folders_of_their_own(sweep):
    text = f"""{SMALL}
settings:
  plain: {{}}
  fast: {{OPTIM.LR: 0.1, depth: 3}}
  wide: {{TRAINER.MAPLE.N_CTX: 4}}
  deep: {{depth: 2}}
exclude:
- {{shots: 2}}
- {{seed: 2}}
- {{settings: fast, trainer: CoOp}}
"""
    made = make_plan(sweep(text).requests)
    assert [(run.trainer, run.folder.parent.name, run.options) for run in made.runs] == [
        ("CoOp", "demo", ()),  # once: what the others set is not CoOp's
        ("MaPLe", "demo", ()),
        ("MaPLe", "demo@fast", (("TRAINER.MAPLE.PROMPT_DEPTH", "3"), ("OPTIM.LR", "0.1"))),
        ("MaPLe", "demo@wide", (("TRAINER.MAPLE.N_CTX", "4"),)),
        ("MaPLe", "demo@deep", (("TRAINER.MAPLE.PROMPT_DEPTH", "2"),)),
    ]


def test_a_curve_is_of_one_name_of_settings(sweep, tmp_path):
    """Its lines are trainers: with two settings in one table, one would hide the other."""
    made = make_plan(sweep(f"{SMALL}settings: {{plain: {{}}, slow: {{OPTIM.LR: 1}}}}\n").requests)
    curves = [(table.title, Path(table.flags[-1]).name) for table in made.tables]
    assert curves == [
        ("few-shot, demo_aerial", "few_shot.png"),
        ("few-shot, demo_aerial, slow", "few_shot@slow.png"),
    ]
    assert {folder.name for folder in made.tables[1].folders} == {"demo@slow"}


def test_options_of_all_runs_and_of_the_command_line(sweep, tmp_path):
    (tmp_path / "w.pth").touch()
    text = f"{SMALL}options: {{OPTIM.LR: 1, DOMAIN.WEIGHTS: w.pth, TRAINER.COOP.CSC: true}}\n"
    text += "settings: {lr: {OPTIM.LR: 3}}\nprecision: fp32\n"
    read = sweep(text, options=(("OPTIM.MAX_EPOCH", "2"),), data="d", out="o")
    run = make_plan(read.requests).runs[0]
    assert run.options == (
        ("TRAINER.COOP.PREC", "fp32"),
        ("OPTIM.LR", "3"),
        ("DOMAIN.WEIGHTS", f"{tmp_path}/w.pth"),
        ("TRAINER.COOP.CSC", "True"),
        ("OPTIM.MAX_EPOCH", "2"),
    )
    assert (read.requests[0].data, run.folder.parts[: len(tmp_path.parts) + 1]) == (
        tmp_path / "d",
        (tmp_path / "o").parts,
    )


def test_exclusions_that_leave_out_nothing_are_said(sweep, tmp_path, caplog):
    entries = ["{seed: 2}", "{seed: 77}", "{shots: 8}", "{trainer: CoCoOp}", "{shots: 1, seed: 1}"]
    read = sweep(SMALL + "exclude:\n" + "".join(f"  - {entry}\n" for entry in entries))
    assert [seed for *_, seed in places(read, tmp_path)] == [1, 1]
    said = [f"{tmp_path}/sweep.yaml: exclude[{number}] leaves out nothing." for number in (1, 2, 3)]
    assert caplog.messages == said


def test_keys_of_trainers_that_are_not_in_the_sweep_are_said(sweep, tmp_path, caplog):
    text = f"{SMALL}options: {{OPTIM.LR: 1, TRAINER.COCOOP.N_CTX: 4}}\nsettings: {{plain: {{}}, "
    sweep(text + "long: {TRAINER.COOP.N_CTX: 16, TRAINER.VPT.N_CTX_VISION: 4, depth: 2}}\n")
    file, said = tmp_path / "sweep.yaml", "changes nothing: its trainer is not in this sweep."
    assert caplog.messages == [
        f"{file}: options: TRAINER.COCOOP.N_CTX {said}",
        f"{file}: settings.long: TRAINER.VPT.N_CTX_VISION {said}",
    ]


@pytest.mark.parametrize(
    ("of_all", "of_variant", "options"),
    [
        ("options: {MODEL.BACKBONE.NAME: demo}", "backbone: B", ["MODEL.BACKBONE.NAME B"]),
        ("backbone: A", "MODEL.BACKBONE.NAME: B", ["MODEL.BACKBONE.NAME B"]),
        ("options: {TRAINER.MAPLE.PREC: amp}", "precision: fp32", ["TRAINER.MAPLE.PREC fp32"]),
        ("options: {TRAINER.MAPLE.PROMPT_DEPTH: 9}", "depth: 2", ["TRAINER.MAPLE.PROMPT_DEPTH 2"]),
        ("depth: 9", "TRAINER.MAPLE.PROMPT_DEPTH: 2", ["TRAINER.MAPLE.PROMPT_DEPTH 2"]),
        ("depth: 9", "depth: 2", ["TRAINER.MAPLE.PROMPT_DEPTH 2"]),
    ],
)
def test_named_settings_are_over_those_of_all_runs(sweep, of_all, of_variant, options):
    """Else a folder would have the name of settings that its runs do not have."""
    text = f"{SMALL.replace('CoOp, ', '')}{of_all}\nsettings: {{a: {{{of_variant}}}}}\n"
    runs = make_plan(sweep(text).requests).runs
    assert {run.folder.parent.name for run in runs} == {"demo@a"}
    assert [" ".join(pair) for pair in runs[0].options] == options


def test_the_command_line_is_over_the_file_but_not_over_named_settings(sweep):
    text = f"{SMALL}depth: 9\nsettings: {{plain: {{}}, a: {{OPTIM.LR: 1, depth: 3}}}}\n"
    given = (("OPTIM.MAX_EPOCH", "2"),)
    runs = make_plan(sweep(text, options=given).requests).runs
    assert {run.options for run in runs if run.trainer == "MaPLe"} == {
        (("TRAINER.MAPLE.PROMPT_DEPTH", "9"), *given),
        (("TRAINER.MAPLE.PROMPT_DEPTH", "3"), ("OPTIM.LR", "1"), *given),
    }
    for key in ("OPTIM.LR", "TRAINER.MAPLE.PROMPT_DEPTH"):
        with pytest.raises(UserError, match=rf"settings\.a of .* sets {key}, as the command line"):
            make_plan(sweep(text, options=((key, "5"),)).requests)
    plain = text.replace("depth: 3", "")
    given = (("TRAINER.MAPLE.PROMPT_DEPTH", "5"),)
    runs = make_plan(sweep(plain, options=given).requests).runs
    assert {run.options[0] for run in runs if run.trainer == "MaPLe"} == set(given)


def test_a_depth_of_named_settings_that_a_trainer_has_not_is_noted(sweep):
    made = make_plan(sweep(f"{SMALL}settings: {{a: {{depth: 3}}}}\n").requests)
    assert made.notes == ["depth 3 changes nothing for CoOp: no key sets layers there"]


def test_engine_configs_and_targets(sweep):
    text = "protocols: cross-dataset\ndatasets: rsscn7\ntrainers: [CoOp, GDA]\nseeds: 1\n"
    text += "targets: [AID]\nconfigs: {coop: vit_b16, all: demo}\n"
    read = sweep(f"{text}engine: {{name: slurm, partition: gpu, time: 60}}\n")
    assert read.engine == ("slurm", {"partition": "gpu", "time": 60})
    runs = make_plan(read.requests).runs
    assert [(run.trainer, run.config, run.dataset) for run in runs] == [
        *(("CoOp", "vit_b16", "rsscn7"), ("CoOp", "vit_b16", "aid"), ("GDA", "demo", "rsscn7")),
    ]
    assert sweep(f"{text}engine: ray\n").engine == ("ray", {})


def test_lists_of_text_are_what_dplq_train_takes(sweep, tmp_path):
    (tmp_path / "w").mkdir()
    for name in "ab":
        (tmp_path / f"w/{name}.pth").touch()
    values = {
        "INPUT.TRANSFORMS": ["random_flip", "normalize"],
        "INPUT.PIXEL_MEAN": [0.5, 0.25, 1],
        "DOMAIN.ENCODER": ["mae_vit_base_patch16", "clip"],
        "DOMAIN.WEIGHTS": ["w/a.pth", "w/b.pth"],
    }
    text = f"{SMALL}options: {json.dumps(values)}\n"
    options = dict(make_plan(sweep(text).requests).runs[0].options)
    from dassl.config import get_cfg_default  # found once the plug-in has been imported

    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_options(cfg, [word for pair in options.items() for word in pair])
    assert list(cfg.INPUT.TRANSFORMS) == values["INPUT.TRANSFORMS"]
    assert list(cfg.INPUT.PIXEL_MEAN) == values["INPUT.PIXEL_MEAN"]
    assert list(cfg.DOMAIN.ENCODER) == values["DOMAIN.ENCODER"]
    assert list(cfg.DOMAIN.WEIGHTS) == [f"{tmp_path}/w/{name}.pth" for name in "ab"]


def test_options_of_an_engine_may_be_nested(sweep):
    text = "engine: {name: slurm, extra: {constraint: a100, exclusive: true}, setup: [a, b]"
    _, options = sweep(f"{SMALL}{text}, time: 4:00:00}}\n").engine
    assert options == {
        "extra": {"constraint": "a100", "exclusive": True},
        "setup": ["a", "b"],
        "time": "4:00:00",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: a", "cannot be used: object missing required field `protocols`"),
        (f"{SMALL}trainer: CoOp", "object contains unknown field `trainer`"),
        (f"{SMALL}exclude: [{{trainers: CoOp}}]", r"exclude\[0\]: .*unknown field `trainers`"),
        (SMALL.replace("few-shot", "fewshot"), "protocols: unknown protocol 'fewshot'. Did you"),
        (SMALL.replace("aerial", "arial"), "datasets: unknown dataset 'demo_arial'"),
        (SMALL.replace("maple", "mable"), "trainers: unknown TRAINER 'mable'"),
        (SMALL.replace("[1, 2]", "[0]", 1), "shots: 0: give numbers above 0, or -1"),
        (SMALL.replace("seeds: [1, 2]", "seeds: [-1]"), "seeds.*>= 0"),
        (f"{SMALL}depth: 0", "depth: expected `int` >= 1"),
        (f"{SMALL}precision: fp8", "precision 'fp8' is unknown"),
        (f"{SMALL}settings: {{a/b: {{}}}}", "settings.a/b: give a name of letters, digits"),
        (f"{SMALL}settings: {{a: {{LR: 1}}}}", "settings.a.LR: neither a config key nor one of"),
        (f"{SMALL}settings: {{a: {{SEED: 1}}}}", "settings.a.SEED: the plan sets this itself"),
        (f"{SMALL}settings: {{a: {{depth: no}}}}", "settings.a: depth is 'False'"),
        (
            f"{SMALL}settings: {{b: {{TRAINER.COPO.N_CTX: 4}}}}",
            "settings.b: TRAINER.COPO.N_CTX is in no trainer's section. Did you mean 'COOP'",
        ),
        (f"{SMALL}options: {{TRAINER.N_CTX: 4}}", "options: TRAINER.N_CTX is in no"),
        (f"{SMALL}options: {{TRAINER.COOP: 4}}", "options: TRAINER.COOP is in no"),
        (f"{SMALL}options: {{depth: 3}}", "options.depth: write it beside options"),
        (f"{SMALL}exclude: [{{}}]", r"exclude\[0\]: it names nothing"),
        (f"{SMALL}exclude: [{{settings: x}}]", r"exclude\[0\].settings: there is no 'x'"),
        (f"{SMALL}exclude: [{{protocol: few-shot}}]", "exclude: nothing is left to run"),
        (f"{SMALL}engine: {{name: [ray]}}", r"engine.name: \['ray'\] is no name. Choices: local"),
        ("protocols: []\ndatasets: a", "datasets: unknown dataset 'a'"),
        ("protocols: []\ndatasets: aid", "protocols: name at least one"),
    ],
)
def test_bad_sweeps_name_the_file_and_the_key(sweep, text, message):
    with pytest.raises(UserError, match=message) as caught:
        sweep(text)
    assert "sweep.yaml" in str(caught.value)


def test_two_settings_of_one_folder_are_refused(sweep):
    """Where a config is called as another one with a name of settings."""
    read = sweep(f"{SMALL}settings: {{a: {{OPTIM.LR: 1}}}}\n")
    twice = [read.requests[0], *sweep(f"{SMALL}settings: {{a: {{OPTIM.LR: 2}}}}\n").requests]
    with pytest.raises(UserError, match=r"demo@a/seed1, but differ \(OPTIM.LR 1, OPTIM.LR 2\)"):
        make_plan(twice)


def test_the_file_may_be_anywhere(sweep, tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml cannot be used"):
        read_sweep(Path(tmp_path, "none.yaml"), tmp_path)


def test_the_example_of_the_documentation(sweep, tmp_path):
    page = (CONFIGS.parent / "docs/run.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    read = sweep(text)
    assert read.engine == ("local", {"jobs": 4})
    runs = make_plan(read.requests).runs
    places = {run.folder.parent.relative_to(tmp_path / "output/sweep") for run in runs}
    place = "base2new/train_base/rsscn7/shots_16"
    assert Path(place, "CoOp/vit_b16_ctxv1@shallow") not in places  # of which nothing is CoOp's
    assert Path(place, "MaPLe/vit_b16_c2_ep5_batch4_2ctx@shallow") in places
    assert Path(place, "MaPLe/vit_b16_c2_ep5_batch4_2ctx@slow") in places
    assert Path(place, "CoOp/vit_b16_ctxv1@slow") not in places
