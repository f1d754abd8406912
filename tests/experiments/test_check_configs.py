"""Configs are checked before anything is started: keys, values, config files, modules."""

from __future__ import annotations

import pytest

from dplq.cli import run as command
from dplq.experiments import check_configs as module
from dplq.experiments.check_configs import check_configs
from dplq.experiments.requests import script

BASE = ["base2new", "demo_aerial", "--trainers", "CoOp", "MaPLe", "--seeds", "1", "2"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Call `dplq run` in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPLQ_PYTHON", raising=False)

    def call(*words):
        code = command.main([*map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--jobs", "2"]], ids=" ".join)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["OPTIM.LR", "-1"], "OPTIM.LR is -1; it must be above 0. (8 runs of CoOp, MaPLe)"),
        (["TRAINER.MAPLE.N_CTX", "0"], "TRAINER.MAPLE.N_CTX is 0; it must be at least 1."),
        (["OPTIM.MAX_EPOCHS", "2"], "Unknown config key OPTIM.MAX_EPOCHS. Did you mean"),
        (["TRAINER.COOP.CLASS_TOKEN", "front"], "TRAINER.COOP.CLASS_TOKEN"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_keys_that_cannot_be_start_nothing(run, tmp_path, flags, options, said):
    code, _, err = run(*BASE, *flags, "--", *options)
    assert (code, "error: Nothing was started: settings cannot be used.\n" in err) == (2, True), err
    assert said.partition("(")[0] in err
    assert said.partition("(")[2] in err
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_of_a_sweep_is_named_once(run, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "protocols: [base2new, few-shot]\ndatasets: demo_aerial\ntrainers: [CoOp, MaPLe]\n"
        "shots: 2\nseeds: [1, 2]\nsettings:\n"
        "  a: {OPTIM.LR: 0.01}\n  b: {OPTIM.LR: fast}\n  c: {OPTIM.MAX_EPOCH: -3}\n"
    )
    code, _, err = run("s.yaml")
    assert (code, len(err.splitlines())) == (2, 3), err
    for line in ("OPTIM.LR is 'fast'", "OPTIM.MAX_EPOCH is -3"):
        assert line in err
    assert err.count("(12 runs of CoOp, MaPLe)") == 2  # 2 x 2 x 2 of base2new, 2 x 2 of few-shot


def test_config_files_of_ones_own_are_checked(run, tmp_path):
    for name, text in (("good", "{LR: 0.1}"), ("bad", "{LRR: 0.1}")):
        file = tmp_path / f"configs/trainers/CoOp/{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"OPTIM: {text}\n")
    own = ("few-shot", "--trainers", "CoOp", "--shots", 1, "--seeds", 1)
    own += ("--config-folder", "configs", "--dry-run", "--config")
    assert run(*own, "good")[0] == 0
    code, _, err = run(*own, "bad")
    assert (code, "unknown config key OPTIM.LRR" in err, "bad.yaml" in err) == (2, True, True), err


@pytest.mark.parametrize("text", ["raise RuntimeError('no licence')", "raise SystemExit(3)"])
def test_a_module_that_cannot_be_imported_starts_nothing(run, tmp_path, text):
    name = f"broken_module{len(text)}"
    (tmp_path / f"{name}.py").write_text(f"{text}\n")
    code, _, err = run(*BASE, "--import", name)
    assert (code, "it cannot be imported" in err) == (2, True), err
    assert not (tmp_path / "output").exists()


def test_on_other_machines_a_module_may_be_imported_that_cannot_be_here(run, tmp_path, caplog):
    (tmp_path / "of_the_cluster.py").write_text("import of_the_cluster_alone\n")
    words = [*BASE, "--import", "of_the_cluster", "--engine", "slurm", "--dry-run"]
    code, _, err = run(*words)
    assert code == 0, err
    assert "The settings of the runs are not checked here: --import" in caplog.text


def test_a_dataset_that_is_unknown_is_named_with_its_file(run, tmp_path):
    (tmp_path / "configs/datasets").mkdir(parents=True)
    (tmp_path / "configs/datasets/mine.yaml").write_text("DATASET: {NAME: NotThere}\n")
    words = ("few-shot", "mine", "--trainers", "ZeroshotCLIP", "--config-folder", "configs")
    code, _, err = run(*words, "--config", "demo", "--data", tmp_path, "--dry-run")
    assert (code, "datasets/mine.yaml: The dataset 'NotThere' is unknown" in err) == (2, True), err


def test_the_scripts_check_too(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DPLQ_PYTHON", raising=False)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert script.main(["base2new", "demo_aerial", "1", "--", "OPTIM.LR", "-1"]) == 2
    assert "OPTIM.LR is -1; it must be above 0." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_plain_runs_cost_no_imports(run, monkeypatch):
    """Nor do those of another Python, which may have another Dassl."""
    monkeypatch.setattr(module, "import_modules", lambda names: pytest.fail("checked"))
    plan, _ = command.planned(command.parse(BASE), [], module.CONFIGS)
    check_configs(plan.runs)
    plan, _ = command.planned(command.parse(BASE), ["OPTIM.LR", "-1"], module.CONFIGS)
    monkeypatch.setenv("DPLQ_PYTHON", "/bin/true")
    check_configs(plan.runs)
