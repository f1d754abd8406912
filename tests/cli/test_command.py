"""The command `dplq`: help, closed pipes, config files by name."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dplq.cli import config_files
from dplq.cli import train as script
from dplq.errors import UserError
from dplq.io.files import configs_folder
from dplq.io.protocols import CONFIGS
from tests.runner import PROJECT

QUATERNION = configs_folder() / "trainers/QuaternionPrompt"
DEFAULT = "vit_b16_c2_ep15_batch4_2ctx"


def shell(line, **options):
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("PYTHON", sys.executable)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    "arguments",
    ["--help", "data --help", "models --help", "models list", "results --help", "train --help"],
)
def test_a_closed_pipe_ends_quietly(arguments):
    """The reader is gone before the first byte, so that every write fails."""
    done = shell(f"PYTHON -m dplq {arguments} | true; echo codes ${{PIPESTATUS[@]}}")
    assert done.stderr == ""
    assert done.stdout == "codes 0 0\n"


@pytest.mark.parametrize("module", ["dplq.results", "dplq.data"])
def test_the_modules_end_quietly_too(module):
    done = shell(f"PYTHON -m {module} --help | true; echo codes ${{PIPESTATUS[@]}}")
    assert (done.stdout, done.stderr) == ("codes 0 0\n", "")


def test_results_use_the_common_exit_codes(tmp_path):
    done = shell(f"PYTHON -m dplq.results {tmp_path}/none")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_version():
    import dplq

    done = shell("PYTHON -m dplq --version")
    assert done.stdout == f"dplq {dplq.__version__}\n"


@pytest.mark.parametrize("command", ["train", "run", "demo", "results", "models", "data"])
def test_help_of_a_command_imports_nothing_heavy(command):
    code = f"import sys; from dplq.__main__ import main; main(['{command}', '--help'])"
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    done = shell(f'PYTHON -c "{code}"')
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not {"torch", "numpy", "scipy", "dassl", "matplotlib", "huggingface_hub"} & loaded


@pytest.mark.parametrize("name", [DEFAULT, f"{DEFAULT}.yaml", DEFAULT.upper()])
def test_a_config_file_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = config_files.trainer_config(name, "QuaternionPrompt")
    assert found == str(QUATERNION / f"{DEFAULT}.yaml")


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text("")
    assert config_files.trainer_config("demo.yaml", "QuaternionPrompt") == "demo.yaml"
    assert config_files.trainer_config("demo", "QuaternionPrompt") == str(QUATERNION / "demo.yaml")


def test_the_paths_of_the_documentation_are_found_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = f"configs/trainers/QuaternionPrompt/{DEFAULT}.yaml"
    assert config_files.trainer_config(given, None) == str(QUATERNION / f"{DEFAULT}.yaml")
    data = config_files.dataset_config("configs/datasets/own_images.yaml")
    assert data == str(CONFIGS / "datasets/own_images.yaml")


@pytest.mark.parametrize("name", ["rsscn7", "RSSCN7.yaml", "demo_aerial", "DemoAerial"])
def test_a_dataset_is_found_by_its_file_or_its_name(name):
    found = config_files.dataset_config(name)
    stem = "demo_aerial" if name.lower().startswith("demo") else "rsscn7"
    assert found == str(CONFIGS / f"datasets/{stem}.yaml")


def test_an_unknown_config_file_names_the_nearest():
    with pytest.raises(UserError, match=r"no config file vit_b16_ep15 .* Did you mean vit_b16_c2_"):
        config_files.trainer_config("vit_b16_ep15", "QuaternionPrompt")
    with pytest.raises(UserError, match=r"--dataset-config-file\).* Did you mean rsscn7 or"):
        config_files.dataset_config("rsscn")
    with pytest.raises(UserError) as caught:  # another trainer's are named as they can be given
        config_files.trainer_config("demo", "Mine")
    (name, *_) = str(caught.value).partition("Did you mean ")[2].rstrip("?").split(" or ")
    assert config_files.trainer_config(name, "Mine").endswith("/demo.yaml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("QuaternionPrompt", "DemoAerial", "all", 16), "QuaternionPrompt/demo"),
        (("QuaternionPrompt", "demotissuev2", "all", 16), "QuaternionPrompt/demo"),
        (("QuaternionPrompt", "DemolitionSites", "base", 16), f"QuaternionPrompt/{DEFAULT}"),
        (("QuaternionPrompt", "RSSCN7", "base", 16), f"QuaternionPrompt/{DEFAULT}"),
        (("CoOp", "RSSCN7", "base", 16), "CoOp/vit_b16_ctxv1"),
        (("CoOp", "RSSCN7", "all", 2), "CoOp/vit_b16_ep100"),
    ],
)
def test_the_default_config_is_the_protocols(given, expected):
    assert config_files.default_config(*given) == str(CONFIGS / f"trainers/{expected}.yaml")


def test_a_trainer_without_configs_needs_one():
    with pytest.raises(UserError, match="Mine has no config files of its own: give --config-file"):
        config_files.default_config("Mine", "RSSCN7", "all", 16)


def config_of(*arguments):
    import dplq.plugin  # noqa: F401

    return script.setup_cfg(script.build_parser().parse_args(list(arguments)))


def test_a_run_without_a_config_file_takes_the_default_and_says_so(tmp_path, caplog):
    flags = ["--trainer", "QuaternionPrompt", "--dataset-config-file", "demo_aerial"]
    flags += ["--output-dir", str(tmp_path / "run")]
    with caplog.at_level("INFO"):
        cfg = config_of(*flags, "DATASET.NUM_SHOTS", "4")
    assert (cfg.MODEL.BACKBONE.NAME, cfg.DOMAIN.ENCODER) == ("demo", "demo")
    assert f"No --config-file is given: {QUATERNION / 'demo.yaml'} is used." in caplog.text


def test_the_log_names_the_default_config_file(tmp_path, capsys):
    flags = ["--trainer", "QuaternionPrompt", "--dataset-config-file", "demo_aerial"]
    args = script.build_parser().parse_args([*flags, "--output-dir", str(tmp_path / "run")])
    script.print_args(args, script.setup_cfg(args))
    assert f"\nconfig_file: {QUATERNION / 'demo.yaml'}\n" in capsys.readouterr().out


def test_a_run_that_names_its_backbone_takes_no_default(tmp_path, caplog):
    flags = ["--trainer", "QuaternionPrompt", "--dataset-config-file", "demo_aerial"]
    flags += ["--output-dir", str(tmp_path / "run"), "--backbone", "demo"]
    with caplog.at_level("INFO"):
        cfg = config_of(*flags)
    assert cfg.INPUT.SIZE == (224, 224)
    assert "No --config-file" not in caplog.text


def test_settings_text_shows_what_differs_and_nothing_else(tmp_path):
    from dplq.cli.summary import settings_text

    flags = ["--trainer", "QuaternionPrompt", "--dataset-config-file", "demo_aerial"]
    cfg = config_of(*flags, "--output-dir", str(tmp_path), "--seed", "3", "OPTIM.LR", "0.5")
    lines = settings_text(cfg).splitlines()
    assert lines[0] == f"QuaternionPrompt on DemoAerial, seed 3: {tmp_path}"
    assert re.search(r"^  OPTIM: .*LR 0\.5", "\n".join(lines), re.MULTILINE)
    assert len(lines) < 25
    assert not any("COCOOP" in line or "GAMMA" in line for line in lines)
