"""train.py from the command line: its output files, and its errors for bad input.

Every mistake must give one line on stderr that says what to do, exit code 2, and no traceback.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from dplq.io import checkpoint
from tests.runner import CLASSES, PROJECT, make_project, train


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project and its flags, without --output-dir."""
    folder = tmp_path_factory.mktemp("project")
    return folder, make_project(folder)


@pytest.fixture(scope="module")
def trained(project):
    """A finished run on the base classes."""
    folder, flags = project
    options = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "base"]
    done = train(folder / "base", [*flags, "--output-dir", str(folder / "base"), *options])
    assert done.code == 0, done.err
    return folder / "base", done


def replaced(flags, flag, value):
    """Return the flags with one value replaced."""
    at = flags.index(flag)
    return [*flags[: at + 1], value, *flags[at + 2 :]]


def refused(tmp_path, arguments, *before):
    """Run train.py, which must fail with one line; return that line."""
    done = train(tmp_path / "log", [*arguments], *before)
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.err
    return lines[0]


def test_a_run_writes_what_coop_users_expect(trained):
    folder, done = trained
    assert {p.name for p in folder.iterdir()} == {
        "log.txt",
        "metrics.csv",
        "predictions.csv",
        "prompt_learner",
        "results.json",
        "run.json",
        "tensorboard",
        ".lock",
    }
    log = (folder / "log.txt").read_text()
    assert "epoch [3/3] batch [4/4]" in log
    assert "* accuracy: " in log
    assert "Dassl in use: " in log
    assert "RANDOM weights" in log
    assert any((folder / "tensorboard").iterdir())
    assert "train:" in done.err  # the progress bar


def test_results_json(trained):
    folder, _ = trained
    result = json.loads((folder / "results.json").read_text())
    per_class = result["per_class_accuracy"]
    assert list(per_class) == ["forest", "parking lot"]
    assert result["total"] == 8
    assert result["correct"] == result["accuracy"] * 8 / 100
    assert result["accuracy"] == pytest.approx(sum(per_class.values()) / 2)
    assert result["learnable_parameters"] == sum(
        t.numel()
        for t in checkpoint.read(folder / "prompt_learner/model-3.safetensors")[0].values()
    )
    assert (result["shots"], result["seed"], result["subsample"]) == (4, 1, "base")
    assert result["config"]["OPTIM"]["LR"] == 0.0035
    assert result["seconds"]["train"] > 0
    assert result["peak_memory_mib"] > 50
    assert result["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_new_classes_are_tested_with_the_base_prompts(project, trained):
    folder, flags = project
    out = folder / "new"
    options = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "new"]
    model = ["--eval-only", "--model-dir", str(trained[0])]
    done = train(folder / "new", [*flags, "--output-dir", str(out), *model, *options])
    assert done.code == 0, done.err
    result = json.loads((out / "results.json").read_text())
    assert list(result["per_class_accuracy"]) == ["river", "storage tank"]
    assert "(epoch = 3)" in done.out
    assert result["seconds"]["train"] is None


def test_seed_zero_is_a_seed(project, tmp_path):
    _, flags = project
    flags = replaced(flags, "--seed", "0")
    weights = []
    for name in ("a", "b"):
        done = train(
            tmp_path / name, [*flags, "--output-dir", str(tmp_path / name), "OPTIM.MAX_EPOCH", "1"]
        )
        assert done.code == 0, done.err
        weights.append(checkpoint.read(tmp_path / name / "prompt_learner/model-1.safetensors")[0])
        assert json.loads((tmp_path / name / "results.json").read_text())["seed"] == 0
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])


def test_loss_falls(project, tmp_path):
    """Many epochs on a small model: the loss ends below half of where it began."""
    _, flags = project
    options = ["OPTIM.MAX_EPOCH", "30", "OPTIM.LR", "0.05", "DATALOADER.TRAIN_X.BATCH_SIZE", "8"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert done.code == 0, done.err
    losses = [
        float(line.split(" loss ")[1].split()[0])
        for line in done.out.splitlines()
        if " loss " in line
    ]
    assert len(losses) == 30 * 3
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])


def test_the_activation_is_chosen_and_said(project, tmp_path):
    _, flags = project
    run = tmp_path / "run"
    options = ["MODEL.BACKBONE.ACT", "quickgelu", "OPTIM.MAX_EPOCH", "1"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(run), *options])
    assert done.code == 0, done.err
    assert ": activation quickgelu\n" in done.out
    header = checkpoint.read_header(run / "prompt_learner/model-1.safetensors")
    assert header["backbone"]["act"] == "quickgelu"


def test_best_val_is_kept_and_deployed(project, tmp_path):
    _, flags = project
    run = tmp_path / "run"
    done = train(
        tmp_path / "log", [*flags, "--output-dir", str(run), "TEST.FINAL_MODEL", "best_val"]
    )
    assert done.code == 0, done.err
    assert (run / "prompt_learner/model-best.safetensors").is_file()
    assert "Deploy the model with the best val performance" in done.out
    assert 'model-best.safetensors" (epoch = ' in done.out


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"--trainer": "QuaternionPromt"}, [], "Did you mean 'QuaternionPrompt'"),
        ({"--dataset-config-file": "none.yaml"}, [], "There is no config file none.yaml"),
        ({}, ["DATASET.NAME", "RSSCN"], "The dataset 'RSSCN' is unknown. Did you mean 'RSSCN7'"),
        ({}, ["MODEL.BACKBONE.NAME", "ViT-B/61"], "ViT-B/61.*ViT-B/16"),
        (
            {},
            ["MODEL.BACKBONE.NAME", "RN50", "INPUT.SIZE", "(224, 224)"],
            "RN50.*its image tower is a ResNet, which has no tokens",
        ),
        ({}, ["TRAINER.QUATERNIONPROMPT.N_CTXX", "2"], "mean TRAINER.QUATERNIONPROMPT.N_CTX"),
        ({}, ["OPTIM.LR"], "'OPTIM.LR' has no partner"),
        ({}, ["OPTIM.MAX_EPOCH", "0"], "OPTIM.MAX_EPOCH is 0; it must be at least 1"),
        ({}, ["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], "TRAIN_X.BATCH_SIZE is 0; it must be at l"),
        ({}, ["INPUT.PIXEL_MEAN", "[0.5, 0.5]"], "PIXEL_MEAN is .* it must be three numbers"),
        ({}, ["TEST.FINAL_MODEL", "best"], "TEST.FINAL_MODEL is 'best'; it must be last_step or"),
        ({}, ["TEST.SPLIT", "dev"], "TEST.SPLIT is 'dev'; it must be test or val"),
        ({}, ["TRAINER.QUATERNIONPROMPT.RESIDUAL", "false"], "RESIDUAL is 'false'; write True or"),
        ({"--seed": "99999999999"}, [], "SEED is 99999999999; it must be at most 4294967295"),
        ({}, ["OPTIM.NAME", "sgdd"], "OPTIM.NAME 'sgdd' is unknown. Did you mean 'sgd'"),
        ({}, ["OPTIM.LR_SCHEDULER", "cosin"], "LR_SCHEDULER 'cosin' is unknown"),
        ({}, ["OPTIM.MAX_EPOCH", "many"], "OPTIM.MAX_EPOCH"),
        ({}, ["TRAINER.QUATERNIONPROMPT.PREC", "fp8"], "PREC 'fp8' is unknown.*Choices: amp, bf16"),
        ({}, ["INPUT.SIZE", "(64, 64)"], r'reads 32x32: set INPUT.SIZE "\(32, 32\)"'),
        ({}, ["TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", "9"], "PROMPT_DEPTH 9 .* 1 to 2 layers"),
        ({}, ["DOMAIN.ENCODER", "mae_vit_base_patch61"], "mae_vit_base_patch16"),
        ({}, ["DOMAIN.NORMALIZE", "naive"], "naive.*native"),
        ({}, ["MODEL.BACKBONE.PRETRAINED", "True"], "weights"),
        ({"--root": "nowhere"}, [], "nowhere"),
    ],
)  # fmt: skip
def test_one_clear_message(project, tmp_path, changes, options, message):
    _, flags = project
    for flag, value in changes.items():
        flags = replaced(flags, flag, value)
    line = refused(tmp_path, [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert re.search(message, line), line


def test_config_file_with_an_unknown_key(project, tmp_path):
    _, flags = project
    (tmp_path / "bad.yaml").write_text("OPTIM:\n  MAX_EPOCHS: 3\n")
    line = refused(tmp_path, replaced(flags, "--config-file", str(tmp_path / "bad.yaml")))
    assert "bad.yaml: unknown config key OPTIM.MAX_EPOCHS. Did you mean OPTIM.MAX_EPOCH" in line
    (tmp_path / "bad.yaml").write_text("OPTIM: [1\n")
    line = refused(tmp_path, replaced(flags, "--config-file", str(tmp_path / "bad.yaml")))
    assert "bad.yaml cannot be used: it is not valid YAML" in line


def test_missing_and_wrong_checkpoints(project, trained, tmp_path):
    _, flags = project
    test = [*flags, "--eval-only", "--output-dir", str(tmp_path / "run")]
    assert "--eval-only needs --model-dir" in refused(tmp_path, test)
    line = refused(tmp_path, [*test, "--model-dir", str(tmp_path / "none")])
    assert "none/prompt_learner holds no checkpoint. Check the folder and the epoch" in line
    model = ["--model-dir", str(trained[0])]
    line = refused(tmp_path, [*test, *model, "--load-epoch", "7"])
    assert "holds no checkpoint of epoch 7; epochs that are there: 3" in line
    line = refused(tmp_path, [*test, *model, "TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", "1"])
    assert "settings.prompt_depth: there 2, now 1" in line
    line = refused(tmp_path, [*test, *model, "TRAINER.QUATERNIONPROMPT.N_CTX", "4"])
    assert "settings.n_ctx: there 2, now 4" in line


@pytest.mark.parametrize("place", ["file", "file/below", "run.log"])
def test_output_folder_that_cannot_be_used(project, tmp_path, place):
    _, flags = project
    (tmp_path / "file").write_text("")
    (tmp_path / "run.log").write_text("")
    line = refused(tmp_path, [*flags, "--output-dir", str(tmp_path / place)])
    assert "cannot be used" in line
    assert place in line


def test_resume_in_another_folder_takes_the_best_model_along(project, trained, tmp_path):
    """A best_val run that is finished, continued elsewhere: nothing to train, the best deployed."""
    _, flags = project
    flags = [*flags, "TEST.FINAL_MODEL", "best_val"]
    first, second = ["--output-dir", str(tmp_path / "a")], ["--output-dir", str(tmp_path / "b")]
    at = flags.index("TEST.FINAL_MODEL")
    assert train(tmp_path / "1", [*flags[:at], *first, *flags[at:]]).code == 0
    resume = ["--resume", str(tmp_path / "a")]
    done = train(tmp_path / "2", [*flags[:at], *second, *resume, *flags[at:]])
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "a/prompt_learner").iterdir()}
    assert names - {path.name for path in (tmp_path / "b/prompt_learner").iterdir()} == {
        "resume.safetensors",
        "resume-previous.safetensors",
    }
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("a", "b")]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["epochs"] == results[1]["epochs"] <= 3
    other = train(tmp_path / "3", [*flags[:at], *first])
    assert other.code == 2
    assert "TEST.FINAL_MODEL: there 'best_val', now 'last_step'" in other.err
    assert "Give another --output-dir, or delete that run" in other.err


def no_space_for(name):
    """Make the disk full for files of that name."""
    original = os.replace

    def replace(source, target):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    os.replace = replace


def test_full_disk_keeps_the_old_checkpoint(project, tmp_path):
    _, flags = project
    run = tmp_path / "run"
    flags = [*flags, "--output-dir", str(run)]
    assert train(tmp_path / "a", [*flags, "OPTIM.MAX_EPOCH", "1"]).code == 0
    old = run / "prompt_learner/model-1.safetensors"
    before = old.read_bytes()
    (run / "prompt_learner/resume.safetensors").unlink()
    (run / "results.json").unlink()
    line = refused(tmp_path, [*flags, "OPTIM.MAX_EPOCH", "1"], no_space_for, old.name)
    assert "Cannot write" in line
    assert "No space left on device" in line
    assert "unchanged" in line
    assert old.read_bytes() == before


def test_nan_loss(project, tmp_path):
    _, flags = project
    options = ["OPTIM.LR", "1e30", "OPTIM.WARMUP_EPOCH", "-1"]
    line = refused(tmp_path, [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert "The loss became nan" in line
    assert "Lower OPTIM.LR" in line


def test_fewer_images_than_shots_warns_with_the_count(project, tmp_path):
    _, flags = project
    options = ["DATASET.NUM_SHOTS", "50", "OPTIM.MAX_EPOCH", "1"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert done.code == 0, done.err
    for name in ("forest", "river"):
        assert [x for x in done.out.splitlines() if name in x and "6" in x and "50" in x], done.out


def test_foreign_keys_are_pointed_out(project, tmp_path):
    _, flags = project
    options = ["--no-train", "TRAINER.MAPLE.N_CTX", "4"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert "TRAINER.MAPLE.N_CTX is set, but QuaternionPrompt does not read it" in done.out
    assert "DOMAIN.ENCODER is set" not in done.out


def test_half_precision_on_a_cpu_says_what_it_does(project, tmp_path):
    _, flags = project
    options = ["--no-train", "USE_CUDA", "False", "TRAINER.QUATERNIONPROMPT.PREC", "fp16"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(tmp_path / "run"), *options])
    assert done.code == 0
    assert done.out.count("Precision fp16 needs a GPU; on this CPU the run uses fp32.") == 1


def test_bf16_trains(project, tmp_path):
    _, flags = project
    run = tmp_path / "run"
    options = ["OPTIM.MAX_EPOCH", "1", "TRAINER.QUATERNIONPROMPT.PREC", "bf16"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(run), *options])
    assert done.code == 0, done.err
    assert json.loads((run / "results.json").read_text())["precision"] == "bf16"
    tensors, _ = checkpoint.read(run / "prompt_learner/model-1.safetensors")
    assert all(t.dtype == torch.float32 for t in tensors.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp16", "amp", "bf16", "fp32"])
def test_precisions_on_a_gpu(project, tmp_path, precision):
    _, flags = project
    run = tmp_path / "run"
    options = ["OPTIM.MAX_EPOCH", "2", "TRAINER.QUATERNIONPROMPT.PREC", precision]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(run), *options])
    assert done.code == 0, done.err
    result = json.loads((run / "results.json").read_text())
    assert result["precision"] == precision
    assert result["device"] != "cpu"
    tensors, _ = checkpoint.read(run / "prompt_learner/model-2.safetensors")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values())


def test_config_files_are_found_ignoring_case(tmp_path):
    from dplq.cli import config_files as script

    (tmp_path / "rsscn7.yaml").write_text("")
    assert script.find_ignoring_case(str(tmp_path / "RSSCN7.yaml")) == str(tmp_path / "rsscn7.yaml")
    assert script.find_ignoring_case(str(tmp_path / "aid.yaml")) == str(tmp_path / "aid.yaml")


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from dplq.cli import train; train.build_parser(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_class_names_too_long(project, tmp_path):
    folder, flags = project
    copy = tmp_path / "copy"
    shutil.copytree(folder / "data", copy)
    names = {name: "very " * 80 + name for name in CLASSES}
    (copy / "classes.json").write_text(json.dumps(names))
    line = refused(tmp_path, replaced(flags, "--root", str(copy)))
    assert "very very" in line
    assert "77" in line


def test_a_recorded_seed_must_be_a_number(project, tmp_path):
    _, flags = project
    at = flags.index("--seed")
    (tmp_path / "seed.txt").write_text("one")
    line = refused(tmp_path, [*flags[:at], *flags[at + 2 :], "--output-dir", str(tmp_path)])
    assert "seed.txt should hold one whole number, not 'one'" in line
