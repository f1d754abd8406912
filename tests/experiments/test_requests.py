"""Requests and their plans: folders, models, configs, options; names and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from dplq.errors import UserError
from dplq.experiments import transfer
from dplq.experiments.plan import Plan, Run, merge
from dplq.experiments.requests import flags, values
from dplq.experiments.requests.common_settings import check_common, expand, node_of, own_options
from dplq.experiments.requests.names import find_config, find_dataset, find_trainers
from dplq.experiments.requests.request import Request, find_protocol, make_plan

OUT, DATA = Path("/out"), Path("/data")


def plan(protocol, trainers, datasets=("rsscn7",), **changes):
    return make_plan([Request(protocol, datasets, trainers, OUT, DATA, **changes)])


def shown(made):
    """Return what is run: folders below OUT, and the models that are tested."""
    return [
        (str(run.folder.relative_to(OUT)), run.model and str(run.model.relative_to(OUT)))
        for run in made.runs
    ]


def test_base2new_with_generalised_tests():
    made = plan("base2new", ("CoOp", "LinearProbe"), seeds=(1, 2), generalised=True)
    place = "rsscn7/shots_16/CoOp/vit_b16_ctxv1"
    runs = shown(made)
    assert runs[:3] == [
        (f"base2new/train_base/{place}/seed1", None),
        (f"base2new/test_new/{place}/seed1", f"base2new/train_base/{place}/seed1"),
        (f"base2new/test_all/{place}/seed1", f"base2new/train_base/{place}/seed1"),
    ]
    assert [run.classes for run in made.runs] == ["base", "new", "all"] * 2 + ["base"] * 2
    assert made.notes == ["LinearProbe cannot name other classes than its own: no test on them"]
    (table,) = made.tables
    assert (table.title, table.flags) == ("base2new", ())
    assert [folder.parts[3] for folder in table.folders] == [
        *("train_base", "test_new", "test_all", "train_base"),
    ]


def test_compare_is_base2new_with_the_costs():
    made, same = (plan(name, ("CoOp",)) for name in ("compare", "base2new"))
    assert made.runs == same.runs
    assert made.tables[0].flags == ("--costs",)


def test_few_shot_takes_a_config_for_each_number_and_zero_shot_trainers_once():
    made = plan("few-shot", ("ZeroshotCLIP", "CoOp"), shots=(1, 4, 16), seeds=(3,))
    assert shown(made) == [
        ("rsscn7/shots_16/ZeroshotCLIP/vit_b16/seed3", None),
        ("rsscn7/shots_1/CoOp/vit_b16_ep50/seed3", None),
        ("rsscn7/shots_4/CoOp/vit_b16_ep100/seed3", None),
        ("rsscn7/shots_16/CoOp/vit_b16/seed3", None),
    ]
    assert made.tables[0].flags == ("--by", "shots", "--curve", "/out/rsscn7/few_shot.png")


def test_transfer_tests_the_model_of_the_source_on_each_target():
    made = plan("cross-dataset", ("CoOp", "GDA"), targets=("aid", "rsscn7v2"), seeds=(1,))
    model = "rsscn7/shots_16/CoOp/vit_b16_ep50_ctxv1/seed1"
    tests = "evaluation/rsscn7/CoOp/vit_b16_ep50_ctxv1_16shots"
    assert shown(made) == [
        (model, None),
        (f"{tests}/aid/seed1", model),
        (f"{tests}/rsscn7v2/seed1", model),
        ("rsscn7/shots_16/GDA/vit_b16/seed1", None),
    ]
    assert [run.dataset for run in made.runs[:3]] == ["rsscn7", "aid", "rsscn7v2"]
    assert made.notes[0] == "warning: rsscn7v2 holds the training images of rsscn7"


def test_how_the_source_is_split_is_not_said_to_its_targets():
    options = (("DATASET.SPLIT_FILE", "s.json"), ("DATASET.GROUP", "(a)"), ("OPTIM.LR", "0.1"))
    made = plan("cross-dataset", ("CoOp",), targets=("aid",), seeds=(1,), options=options)
    trained, tested = made.runs
    assert trained.options == options
    assert tested.options == (("OPTIM.LR", "0.1"),)
    said = "of rsscn7 alone, not of its targets: DATASET.SPLIT_FILE, DATASET.GROUP"
    assert said in made.notes
    none = (("DATASET.GROUP", "none"),)
    made = plan("cross-dataset", ("CoOp",), targets=("aid",), seeds=(1,), options=none)
    assert [run.options for run in made.runs] == [none, none]
    assert not any("alone" in note for note in made.notes)


def test_a_source_is_no_target_of_its_own():
    sources = ("rsscn7", "aid")
    made = plan("cross-dataset", ("CoOp",), sources, targets=("aid", "rsscn7", "ucm"), seeds=(1,))
    tested = [(run.model.parts[2], run.dataset) for run in made.runs if run.model]
    assert tested == [("rsscn7", "aid"), ("rsscn7", "ucm"), ("aid", "rsscn7"), ("aid", "ucm")]
    for source in sources:
        assert f"{source} is the source, and no target of its own" in "\n".join(made.notes)


def test_targets_of_which_a_part_is_tested_are_named():
    targets = ("aid", "ucmv2")
    made = plan("domain-generalization", ("CoOp",), targets=targets, seeds=(1,))
    assert made.notes == ["aid is tested on its test images alone; aidv2 is all of them"]
    assert plan("cross-dataset", ("CoOp",), targets=targets, seeds=(1,)).notes == []


def test_default_targets_of_all_sources_come_from_one_process(monkeypatch):
    asked = []

    def answer(sources, data, kind, imports):
        asked.append((sources, data, kind))
        return {source: ["ucm"] for source in sources}

    monkeypatch.setattr("dplq.experiments.requests.request.default_targets", answer)
    made = plan("domain-generalization", ("CoOp",), ("rsscn7", "aid"), seeds=(1,))
    assert asked == [(["rsscn7", "aid"], DATA, "whole")]
    assert [run.dataset for run in made.runs] == ["rsscn7", "ucm", "aid", "ucm"]
    assert [table.title for table in made.tables] == [
        f"domain-generalization, {source}" for source in ("rsscn7", "aid")
    ]


@pytest.mark.slow
def test_default_targets(capsys):
    assert transfer.default_targets(["demo_aerial"], DATA, transfer.CROSS) == {
        "demo_aerial": ["demo_tissue"]
    }
    with pytest.raises(UserError, match="domain of own_images is not known: give targets"):
        transfer.default_targets(["own_images"], DATA, transfer.CROSS)


def test_what_protocols_share_is_run_once():
    requests = [
        Request(name, ("rsscn7",), ("GDA",), OUT, DATA, seeds=(1,), targets=("aid",))
        for name in ("few-shot", "cross-dataset", "base2new")
    ]
    made = make_plan(requests)
    assert [run.classes for run in made.runs] == ["all", "base"]
    assert [table.title for table in made.tables] == [
        *("few-shot, rsscn7", "cross-dataset, rsscn7", "base2new"),
    ]


def test_different_runs_of_one_folder_are_refused():
    run = Run(OUT / "seed1", "rsscn7", "CoOp", "vit_b16", 1, 16, "all")
    other = Run(OUT / "seed1", "rsscn7", "CoOp", "vit_b16", 1, 4, "all", options=(("A.B", "1"),))
    assert merge([Plan([run]), Plan([run])]).runs == [run]
    with pytest.raises(UserError) as caught:
        merge([Plan([run]), Plan([other])])
    assert "/out/seed1, but differ (shots, A.B 1): give their settings other names" in str(
        caught.value
    )


def test_common_settings_are_in_the_keys_of_each_trainer():
    common = {"depth": "5", "precision": "fp32", "backbone": "ViT-L/14"}
    assert expand(common, (), "IVLP", "demo") == (
        ("MODEL.BACKBONE.NAME", "ViT-L/14"),
        ("TRAINER.IVLP.PREC", "fp32"),
        ("TRAINER.IVLP.PROMPT_DEPTH_TEXT", "5"),
        ("TRAINER.IVLP.PROMPT_DEPTH_VISION", "5"),
    )
    assert expand({"depth": "9"}, (), "TCP", "demo") == (("TRAINER.TCP.CLASS_LAYER", "8"),)
    assert expand({"depth": "9"}, (), "CoOp", "demo") == ()
    assert expand({"precision": "amp"}, (), "ZeroshotCLIP2", "demo") == (
        ("TRAINER.ZEROSHOTCLIP.PREC", "amp"),
    )


def test_prompts_that_a_config_has_none_of_stay_away():
    config = "vit_b16_c2_ep5_batch4_4ctx_language_only"
    assert expand({"depth": "5"}, (), "IVLP", config) == (("TRAINER.IVLP.PROMPT_DEPTH_TEXT", "5"),)


def test_a_key_that_is_given_takes_precedence():
    given = (("TRAINER.GDPL.DELTA_DEPTH", "2"),)
    assert expand({"depth": "4"}, given, "GDPL", "demo") == (
        ("TRAINER.GDPL.PROMPT_DEPTH", "4"),
        ("TRAINER.GDPL.DELTA_DEPTH", "2"),
    )


def test_trainers_without_layers_are_named_once():
    made = plan("base2new", ("CoOp", "GDA", "MaPLe"), common={"depth": "3"}, seeds=(1,))
    assert made.notes[0] == ("depth 3 changes nothing for CoOp, GDA: no key sets layers there")
    assert [run.options for run in made.runs] == [
        *[()] * 3,
        *[(("TRAINER.MAPLE.PROMPT_DEPTH", "3"),)] * 2,
    ]


@pytest.mark.parametrize(
    ("common", "message"),
    [
        ({"depth": "0"}, "depth is '0': give a number of layers from 1"),
        ({"depth": "two"}, "depth is 'two'"),
        ({"precision": "fp23"}, "precision 'fp23' is unknown. Did you mean 'fp32'"),
        ({"backbone": ""}, "backbone is empty"),
    ],
)
def test_common_settings_that_nobody_can_have(common, message):
    with pytest.raises(UserError, match=message):
        check_common(common)


def test_a_depth_that_one_trainer_cannot_have():
    with pytest.raises(UserError, match="depth is 1: TCP needs 2 or more"):
        plan("base2new", ("TCP",), common={"depth": "1"})


def test_options_of_other_trainers_are_left_out():
    options = (("TRAINER.COOP.N_CTX", "4"), ("OPTIM.LR", "1"), ("TRAINER.MAPLE.N_CTX", "2"))
    assert own_options(options, "CoOp") == options[:2]
    assert node_of("ZeroshotCLIP2") == "ZEROSHOTCLIP"


def test_names_in_any_case():
    assert [find_dataset(name) for name in ("RSSCN7", "rsscn7.yaml", "demoaerial")] == [
        *("rsscn7", "rsscn7", "demo_aerial"),
    ]
    assert find_trainers(["coop", "MAPLE", "CoOp"]) == ("CoOp", "MaPLe")
    assert "GDPL" in find_trainers(["all"])
    assert find_config("CoOp", "rsscn7", "base2new", 16, {"": "VIT_B16"}) == "vit_b16"
    assert find_config("CoOp", "demo_tissue", "base2new", 16, {}) == "demo"
    assert find_config("CoOp", "rsscn7", "few_shot", 1, {"CoOp": "demo", "": "vit_b16"}) == "demo"
    assert find_protocol("Few_Shot") == "few-shot"


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_dataset, "rscn7", r"unknown dataset 'rscn7'. Choices in .* Did you mean 'rsscn7'\?"),
        (lambda name: find_trainers([name]), "CoOb", "unknown TRAINER 'CoOb'.*Did you mean 'CoOp'"),
        (find_protocol, "fewshot", "unknown protocol 'fewshot'. Did you mean 'few-shot'"),
    ],
)
def test_an_unknown_name_has_the_nearest(find, name, message):
    with pytest.raises(UserError, match=message):
        find(name)


def test_a_value_inside_the_checkout_is_recorded_relative_and_used_absolute(tmp_path, monkeypatch):
    """As the bash scripts recorded it, so that their runs are continued; from any folder."""
    (tmp_path / "w.pth").touch()
    monkeypatch.setattr(values, "checkout", lambda: tmp_path)
    values.for_any_folder.cache_clear()
    given = values.pairs(["DOMAIN.WEIGHTS", "w.pth", "A", "ViT-B/16"], tmp_path, "")
    assert given == (("DOMAIN.WEIGHTS", "w.pth"), ("A", "ViT-B/16"))
    run = Run(OUT, "rsscn7", "CoOp", "vit_b16", 1, 16, "all", options=given)
    assert run.command[-4:] == ["DOMAIN.WEIGHTS", f"{tmp_path}/w.pth", "A", "ViT-B/16"]
    assert run.settings().splitlines()[-2:] == ["DOMAIN.WEIGHTS w.pth", "A ViT-B/16"]
    values.for_any_folder.cache_clear()


def test_words_of_a_command_line(tmp_path):
    assert flags.seeds(["1 2\n3", "2"]) == (1, 2, 3)
    assert flags.shots(["4", "-1", "4"], "--shots") == (4, -1)
    assert flags.folder("a/../b", "--out", tmp_path) == tmp_path / "a/../b"
    (tmp_path / "b").mkdir()
    assert flags.data_folder("./b/../b", "--data", tmp_path) == tmp_path / "b"
    for words, message in ((["x"], "'x' is no seed"), ([" "], "' ' is no seed")):
        with pytest.raises(UserError, match=message):
            flags.seeds(words)
    with pytest.raises(UserError, match="--shots is '0': give a whole number above 0, or -1"):
        flags.shots(["0"], "--shots")
