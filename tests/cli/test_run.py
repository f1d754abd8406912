"""The command `dplq run`: its request, engine and end, with a stand-in for training."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dplq.cli import run as command
from dplq.experiments import carry_out
from dplq.experiments.engines import open_engine
from dplq.experiments.requests.request import PROTOCOLS
from tests.experiments.stand_in import stand_in  # noqa: F401  (a fixture)
from tests.runner import PROJECT


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, and tables that only tell what they are of."""
    monkeypatch.chdir(tmp_path)
    tables = []
    monkeypatch.setattr("dplq.results.__main__.main", lambda words: tables.append(words) or 0)
    return tables


def planned(*words):
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    args = command.parse(words[:cut])
    from pathlib import Path

    return command.planned(args, words[cut + 1 :], Path.cwd())


def test_the_command_line_knows_all_protocols():
    text = " ".join(command.build_parser().format_help().split())
    assert ", ".join(PROTOCOLS) in text.replace("- ", "-")  # argparse breaks words at hyphens


def test_runs_go_through_the_engine_and_end_in_a_table(here, tmp_path, stand_in, capsys):  # noqa: F811
    words = ["base2new", "demo_aerial", "--trainers", "coop", "--seeds", "1", "--out", "o"]
    assert command.main([*words, "--jobs", "2", "--", "OPTIM.LR", "0.1"]) == 0
    assert stand_in.names() == ["train 1", "test 1"]
    (table,) = here
    base2new = tmp_path / "o/base2new"
    place = "demo_aerial/shots_16/CoOp/demo"
    assert table == ["--", *(str(base2new / part / place) for part in ("train_base", "test_new"))]
    assert "OPTIM.LR 0.1" in (base2new / "train_base" / place / "seed1/settings.txt").read_text()
    assert (tmp_path / "o/run_logs/base2new/train_base" / place / "seed1.txt").read_text() == (
        "working on train 1\n"
    )
    assert command.main([*words, "--", "OPTIM.LR", "0.1"]) == 0
    assert len(stand_in.names()) == 2, "finished runs are not repeated"
    assert "already finished: 2 of 2 runs" in capsys.readouterr().out


def test_a_failure_stops_nothing_else_and_the_table_is_printed(here, stand_in, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("FAIL", "train 1")
    words = ["base2new", "--trainers", "CoOp", "MaPLe", "--seeds", "1", "2"]
    assert command.main(words) == 7
    assert sorted(stand_in.names()) == sorted([*["train 1", "train 2", "test 2"] * 2])
    assert len(here) == 1
    text = capsys.readouterr()
    assert "No DATASET given: this is the built-in demo (demo_aerial)." in text.out
    assert "error: failed: CoOp MaPLe. The messages are above" in text.err


def test_several_tables_have_titles(here, tmp_path, stand_in, capsys):  # noqa: F811
    (tmp_path / "s.yaml").write_text(
        "protocols: [base2new, few-shot]\ndatasets: [demo_aerial, demo_tissue]\n"
        "trainers: GDA\nshots: 2\nseeds: 1\n"
    )
    assert command.main(["s.yaml", "--out", "res"]) == 0
    assert len(stand_in.names()) == 4
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if line in {
        "== base2new", "== few-shot, demo_aerial", "== few-shot, demo_tissue"
    }]  # fmt: skip
    assert titles == ["== base2new", "== few-shot, demo_aerial", "== few-shot, demo_tissue"]
    assert [table[:3] for table in here[1:]] == [
        ["--by", "shots", "--curve"],
        ["--by", "shots", "--curve"],
    ]


def test_a_dry_run_starts_nothing(here, stand_in, capsys):  # noqa: F811
    assert command.main(["few-shot", "--trainers", "CoOp", "--shots", "1", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "6 runs: 6 not begun.\nNo finished run to estimate from." in out
    assert (stand_in.names(), here) == ([], [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("local", {})),
        (["--jobs", "3", "--per-gpu", "auto"], ("local", {"jobs": 3, "per_gpu": "auto"})),
        (
            ["--engine", "slurm", "--engine-options", "a=1", "b=c=d"],
            ("slurm", {"a": "1", "b": "c=d"}),
        ),
    ],
)
def test_engines(here, words, expected):
    assert planned("base2new", *words)[1] == expected


@pytest.mark.parametrize(
    ("protocol", "options", "folder"),
    [
        ("base2new", [], "o/.slurm"),
        ("few-shot", [], "o/.slurm"),
        ("base2new", ["--engine-options", "folder=other"], "other"),
    ],
)
def test_files_of_slurm_and_logs_are_in_one_place(
    here,
    tmp_path,
    stand_in,  # noqa: F811
    monkeypatch,
    protocol,
    options,
    folder,
):
    opened = []

    def instead(name, settings):
        opened.append((name, tmp_path / settings["folder"]))
        return open_engine("local", {})

    monkeypatch.setattr("dplq.experiments.engines.open_engine", instead)
    words = [protocol, "demo_aerial", "--trainers", "GDA", "--shots", "2", "--seeds", "1"]
    assert command.main([*words, "--out", "o", "--engine", "slurm", *options]) == 0
    assert opened == [("slurm", tmp_path / folder)]
    assert len(list((tmp_path / "o/run_logs").rglob("seed1.txt"))) == 1


def test_the_engine_of_a_sweep_file_and_of_the_flags(here, tmp_path):
    text = (
        "protocols: base2new\ndatasets: demo_aerial\nengine: {name: slurm, partition: a, time: 9}"
    )
    (tmp_path / "s.yaml").write_text(text)
    assert planned("s.yaml")[1] == ("slurm", {"partition": "a", "time": 9})
    changed = planned("s.yaml", "--engine-options", "partition=b")[1]
    assert changed == ("slurm", {"partition": "b", "time": 9})
    assert planned("s.yaml", "--engine", "local", "--jobs", "2")[1] == ("local", {"jobs": 2})


@pytest.mark.parametrize(
    "words",
    [
        ["--jobs", "2", "base2new", "rsscn7", "aid"],
        ["base2new", "--jobs", "2", "rsscn7", "aid"],
        ["base2new", "rsscn7", "--generalised", "aid", "--seeds", "1"],
        ["base2new", "--dry-run", "rsscn7", "aid", "--", "OPTIM.LR", "1"],
    ],
)
def test_datasets_may_follow_flags(here, words):
    plan, _ = planned(*words, *[] if "--" in words else ["--", "OPTIM.LR", "1"])
    assert {run.dataset for run in plan.runs} == {"rsscn7", "aid"}
    assert plan.runs[0].options == (("OPTIM.LR", "1"),)


def test_only_the_protocol_is_required(here, capsys):
    with pytest.raises(SystemExit):
        command.main(["--jobs", "2"])
    assert "error: the following arguments are required: PROTOCOL|SWEEP.yaml\n" in (
        capsys.readouterr().err
    )


def test_common_settings_and_configs(here):
    words = ["--trainers", "MaPLe", "CoOp", "--depth", "4", "--backbone", "ViT-B/32"]
    plan, _ = planned("base2new", *words, "--config", "maple=demo", "vit_b16", "--seeds", "1")
    assert [(run.config, run.options) for run in plan.runs[::2]] == [
        (
            "demo",
            (("MODEL.BACKBONE.NAME", "ViT-B/32"), ("TRAINER.MAPLE.PROMPT_DEPTH", "4")),
        ),
        ("vit_b16", (("MODEL.BACKBONE.NAME", "ViT-B/32"),)),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "unknown protocol 'nothing'"),
        (["none.yaml"], "none.yaml cannot be used: No such file or directory"),
        (["base2new", "rscn7"], "unknown dataset 'rscn7'"),
        (["base2new", "--engine", "rya"], "--engine rya is unknown. Did you mean 'ray'"),
        (
            ["base2new", "--engine-options", "jobs"],
            "--engine-options jobs: give KEY=VALUE. Did you mean",
        ),
        (
            ["base2new", "--engine-options", "job=1"],
            "The engine local has no option job. Did you m",
        ),
        (["base2new", "--jobs", "0"], "Options of the engine local: jobs: expected `int` >= 1"),
        (
            ["base2new", "--engine", "ray", "--jobs", "2"],
            "--jobs is for the engine local; the engi",
        ),
        (["base2new", "--seeds", "a"], "'a' is no seed"),
        (["base2new", "--shots", "0"], "--shots is '0'"),
        (["base2new", "--depth", "0"], "depth is '0'"),
        (["base2new", "--targets", "aid"], "--targets is for cross-dataset and domain-general"),
        (["few-shot", "--generalised"], "--generalised is for base2new and compare, not few-shot"),
        (["base2new", "--config", "a", "b"], "--config gives all trainers both a and b"),
        (["base2new", "--", "SEED", "3"], "SEED is set by the flags of dplq run"),
        (["base2new", "--", "TRAINER.coop.N_CTX", "4"], "TRAINER.coop.N_CTX is in no trainer's"),
        (["base2new", "--", "OPTIM.LR"], "settings after -- come in pairs KEY VALUE"),
        (["base2new", "--out", "~nobody-here/x"], "--out is ~nobody-here/x: the home folder"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_mistakes_are_one_line_before_anything_runs(
    here,
    stand_in,  # noqa: F811
    capsys,
    words,
    flags,
    message,
):
    assert command.main([*flags, *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert (stand_in.names(), here) == ([], [])


def test_flags_that_a_sweep_file_decides(here, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text("protocols: base2new\ndatasets: demo_aerial\n")
    assert command.main(["s.yaml", "rsscn7", "--seeds", "1", "--depth", "2"]) == 2
    message = "error: datasets, --seeds, --depth: s.yaml says this itself; change it there.\n"
    assert capsys.readouterr().err == message


def test_what_is_wrong_with_a_plan_names_the_sweep_file(here, tmp_path, capsys):
    text = "protocols: base2new\ndatasets: aid\ntrainers: [CoOp]\nconfigs: {all: none}\n"
    (tmp_path / "s.yaml").write_text(text)
    assert command.main(["s.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: s.yaml: unknown CFG 'none'. Choices in conf")


def test_planning_imports_nothing_heavy(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "protocols: [base2new, few-shot]\ndatasets: [demo_aerial, rsscn7]\n"
    )
    code = (
        "import sys; from dplq.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(tmp_path / "s.yaml"), "--dry-run"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    exit_code, *loaded = done.stdout.splitlines()[-1].split()
    assert exit_code == "0"
    assert not {"torch", "numpy", "scipy", "pandas", "dassl", "yacs"} & set(loaded)


def test_notes_come_first_and_warnings_on_stderr(capsys):
    carry_out.print_notes(["a note", "warning: a warning"])
    assert capsys.readouterr() == ("a note\n", "warning: a warning\n")
