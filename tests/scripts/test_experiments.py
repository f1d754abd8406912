"""The scripts of several trainers, shots or datasets, with a stub in place of Python."""

import re
from pathlib import Path

import pytest

from dplq.data.targets import find_targets
from dplq.errors import UserError
from tests.sandbox import Sandbox


@pytest.fixture
def box(tmp_path):
    return Sandbox(tmp_path)


def flags(calls, *names):
    """Return the values of the given flags in each call."""
    return [tuple(args[args.index(name) + 1] for name in names) for args in calls]


def test_compare_runs_all_trainers_and_prints_what_they_cost(box):
    box.add_config("trainers/LinearProbe/tiny.yaml")
    trainers = "coop LinearProbe QuaternionPrompt"
    done = box.run("RSSCN7", "1", script="compare", TRAINERS=trainers)
    assert done.returncode == 0, done.stderr
    assert flags(box.calls()[:3], "--trainer", "DATASET.SUBSAMPLE_CLASSES") == [
        ("CoOp", "base"),
        ("CoOp", "new"),
        ("LinearProbe", "base"),  # which cannot name the new classes
    ]
    lines = [line for line in done.stdout.splitlines() if "1,234" in line]
    costs = ["1,234", "0.25", "900", "5.7"]
    assert [line.split()[0] for line in lines] == ["CoOp", "LinearProbe", "QuaternionPrompt"]
    assert lines[1].split()[4:] == ["-", "-", *costs]
    accuracies = ["90.00", "+-", "-", "60.00", "+-", "-", "72.00", "+-", "-"]
    assert lines[2].split()[1:] == [*accuracies, *costs]
    assert "All lines: config tiny, shots 16, dataset RSSCN7, seeds 1." in done.stdout
    assert "Run on: cpu, fp32." in done.stdout
    assert done.stderr == ""
    again = box.run("RSSCN7", "1", TRAINER="CoOp")
    assert again.stdout.count("already finished") == 2
    assert len(box.calls()) == 5


def test_compare_goes_on_after_a_trainer_that_fails(box):
    env = {"TRAINERS": "CoOp QuaternionPrompt", "STUB_FAIL": "CoOp"}
    done = box.run("RSSCN7", "1", script="compare", **env)
    assert done.returncode == 7
    assert len(box.calls()) == 3
    assert "error: failed: CoOp. The messages are above" in done.stderr
    assert "CoOp/tiny/seed1: not finished" in done.stderr  # the table names it too
    assert "72.00 +- -" in done.stdout
    assert "All lines: config tiny" in done.stdout


def test_compare_with_other_settings_of_one_trainer(box):
    trainers = "CoOp QuaternionPrompt"
    box.run("RSSCN7", "1", "--", "A", "1", TRAINER="CoOp")
    done = box.run("RSSCN7", "1", script="compare", TRAINERS=trainers)
    assert done.returncode == 2
    assert "was made with other settings (there: A 1)" in done.stderr
    assert "failed: CoOp." in done.stderr
    assert len(box.calls()) == 4  # QuaternionPrompt is run


def test_trainers_over_several_lines_are_run_once_each(box):
    trainers = "CoOp\n\tcoop\r\nQuaternionPrompt CoOp\n"
    done = box.run("RSSCN7", "1", script="compare", TRAINERS=trainers)
    assert done.returncode == 0, done.stderr
    assert flags(box.calls()[::2], "--trainer") == [("CoOp",), ("QuaternionPrompt",)]
    assert len(box.calls()) == 4


def test_several_trainers_take_their_own_configs(box):
    box.add_config("trainers/CoOp/vit_b16_ctxv1.yaml")
    env = {"TRAINERS": "CoOp QuaternionPrompt", "CFG_QuaternionPrompt": "tiny", "CFG": ""}
    assert box.run("RSSCN7", "1", script="compare", **env).returncode == 0
    configs = [Path(value).name for (value,) in flags(box.calls()[::2], "--config-file")]
    assert configs == ["vit_b16_ctxv1.yaml", "tiny.yaml"]


def test_few_shot_runs_every_number_of_shots_and_draws_the_curve(box):
    box.add_config("trainers/ZeroshotCLIP/tiny.yaml")
    done = box.run("RSSCN7", "1", "2", script="few_shot", SHOTS="1\n4\t1")
    assert done.returncode == 0, done.stderr
    words = ("--trainer", "DATASET.NUM_SHOTS", "--seed", "DATASET.SUBSAMPLE_CLASSES")
    ours = [("QuaternionPrompt", n, seed, "all") for n in "14" for seed in "12"]
    zero_shot = [("ZeroshotCLIP", "16", seed, "all") for seed in "12"]
    assert flags(box.calls(), *words) == [*zero_shot, *ours]
    out = box.caller / "my out/RSSCN7"
    assert (out / "shots_4/QuaternionPrompt/tiny/seed2/results.json").exists()
    assert re.search(r"trainer +0 shots +1 shot +4 shots", done.stdout)
    assert re.search(r"ZeroshotCLIP +60.00 \+- 0.00 +- +-\n", done.stdout)
    assert (out / "few_shot.png").read_bytes().startswith(b"\x89PNG")
    assert f"Curve: {out}/few_shot.png" in done.stdout


def test_few_shot_takes_coops_epochs_for_each_number_of_shots(box):
    for name in ("vit_b16", "vit_b16_ep50", "vit_b16_ep100"):
        box.add_config(f"trainers/CoOp/{name}.yaml")
    done = box.run("RSSCN7", "1", script="few_shot", CFG="", TRAINER="CoOp")
    assert done.returncode == 0, done.stderr
    configs = [Path(value).stem for (value,) in flags(box.calls(), "--config-file")]
    assert configs == ["vit_b16_ep50", *["vit_b16_ep100"] * 2, *["vit_b16"] * 2]
    assert re.search(r"CoOp +" + r" +".join([r"60.00 \+- -"] * 5), done.stdout)


def test_cross_dataset_tests_the_model_of_the_source_on_the_targets(box):
    for name in ("datasets/AID.yaml", "trainers/LinearProbe/tiny.yaml"):
        box.add_config(name)
    env = {"TARGETS": "btmri aid", "TRAINERS": "QuaternionPrompt LinearProbe"}
    done = box.run("rsscn7", "1", script="cross_dataset", **env)
    assert done.returncode == 0, done.stderr
    out = box.caller / "my out"
    model = str(out / "RSSCN7/shots_16/QuaternionPrompt/tiny/seed1")
    tests = out / "evaluation/RSSCN7/QuaternionPrompt/tiny_16shots"
    calls = box.calls()
    assert [tests / name / "seed1" for name in ("btmri", "AID")] == [
        Path(folder) for (folder,) in flags(calls[1:3], "--output-dir")
    ]
    assert flags(calls[1:3], "--model-dir") == [(model,), (model,)]
    assert len(calls) == 4
    assert flags(calls, "--trainer")[3] == ("LinearProbe",)
    assert re.search(r"trainer +on source +AID +btmri +average", done.stdout)
    assert re.search(r"LinearProbe +60.00 \+- - +- +- +-\n", done.stdout)
    assert "All lines: source RSSCN7, config tiny, shots 16, seeds 1." in done.stdout


def test_domain_generalization_warns_of_the_sources_own_images(box):
    box.add_config("datasets/RSSCN7v2.yaml")
    done = box.run("rsscn7", "1", script="domain_generalization", TARGETS="rsscn7v2")
    assert done.returncode == 0
    assert len(box.calls()) == 2
    assert "warning: RSSCN7v2 holds the training images of RSSCN7" in done.stderr


def test_targets_over_several_lines_are_tested_once_each(box):
    box.add_config("datasets/AID.yaml")
    done = box.run("rsscn7", "1", script="cross_dataset", TARGETS="btmri\n aid\nBTMRI\n")
    assert done.returncode == 0, done.stderr
    folders = [Path(folder).parts[-2] for (folder,) in flags(box.calls()[1:], "--output-dir")]
    assert folders == ["btmri", "AID"]


def test_targets_of_white_space_only(box):
    done = box.run("rsscn7", "1", script="cross_dataset", TARGETS="\n")
    assert (done.returncode, box.calls()) == (2, [])
    text = "error: TARGETS holds white space only: name at least one, or unset it\n"
    assert done.stderr == text


def test_unknown_target_is_one_line_before_anything_runs(box):
    done = box.run("rsscn7", script="cross_dataset", TARGETS="btmri AIDS")
    assert done.returncode == 2
    assert box.calls() == []
    assert done.stderr.count("\n") == 1
    assert "unknown dataset 'AIDS'" in done.stderr


@pytest.mark.parametrize(
    ("source", "kind", "present", "absent"),
    [
        ("demo_aerial", "cross", "demo_tissue", None),
        ("rsscn7", "cross", "whurs19", "aid"),
        ("rsscn7", "whole", "whurs19v2", "aidv2"),
        ("whurs19", "whole", "rsscn7v2", "aidv2"),
    ],
)
def test_default_targets(tmp_path, source, kind, present, absent):
    for name in ("RSSCN7", "WHURS19", "BTMRI"):
        (tmp_path / name).mkdir()
    there, missing = find_targets(source, str(tmp_path), kind)
    assert there == [present]
    assert (absent in missing) if absent else missing == []
    assert source not in missing
    assert f"{source}v2" not in [*there, *missing]


def test_no_default_targets(tmp_path):
    with pytest.raises(UserError, match="domain of own_images is not known: give targets"):
        find_targets("own_images", str(tmp_path), "cross")
    with pytest.raises(UserError, match=r"no declared dataset 'rscn7'.*Did you mean 'rsscn7'"):
        find_targets("rscn7", str(tmp_path), "cross")
    with pytest.raises(UserError, match="rsscn7v2 is tested as a whole, so nothing can be trained"):
        find_targets("rsscn7v2", str(tmp_path), "cross")
    with pytest.raises(UserError, match=r"there is no data folder .*/none: give another \(--data"):
        find_targets("rsscn7", str(tmp_path / "none"), "cross")


def test_generalised_tests_all_classes_together(box):
    box.add_config("trainers/LinearProbe/tiny.yaml")
    env = {"TRAINERS": "LinearProbe CoOp", "GENERALISED": "yes"}
    done = box.run("RSSCN7", "1", "2", script="compare", **env)
    assert done.returncode == 0, done.stderr
    assert flags(box.calls(), "--trainer", "DATASET.SUBSAMPLE_CLASSES", "--seed") == [
        *(("LinearProbe", "base", seed) for seed in "12"),
        *(("CoOp", part, seed) for seed in "12" for part in ("base", "new", "all")),
    ]
    base2new = box.caller / "my out/base2new"
    place = "RSSCN7/shots_16/CoOp/tiny/seed1"
    (test,) = flags(box.calls()[4:5], "--output-dir", "--model-dir")
    assert test == (str(base2new / "test_all" / place), str(base2new / "train_base" / place))
    assert "LinearProbe cannot name other classes than its own: no test on them" in done.stdout
    assert re.search(r"new +H +gen. base +gen. new +gen. H +learnable", done.stdout)
    cells = r" +".join([r"80.00 \+- 0.00", r"40.00 \+- 0.00", r"53.33 \+- 0.00"])
    assert re.search(rf"CoOp .* {cells} +1,234", done.stdout)
    assert re.search(r"LinearProbe +90.00 \+- 0.00( +-){5} +1,234", done.stdout)
    assert done.stderr == ""


def test_generalised_is_yes_or_no(box):
    done = box.run("RSSCN7", "1", GENERALISED="true")
    assert (done.returncode, box.calls()) == (2, [])
    assert done.stderr == "error: GENERALISED is 'true': give yes or no\n"
    assert "GENERALISED  yes: test the model" in box.run("--help").stdout
