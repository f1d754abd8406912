"""Registry, log file, meters, files, checkpoints."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from dassl import utils
from torch import nn


def test_registry_errors():
    table = utils.Registry("TRAINER")

    @table.register()
    class CoOp:
        pass

    assert table.get("CoOp") is CoOp
    assert table.registered_names() == ["CoOp"]
    with pytest.raises(KeyError, match=r"'CoOp' of .*test_utils is already registered by .*utils"):
        table.register(CoOp)
    table.register(CoOp, force=True)
    for kind in (KeyError, ValueError, utils.InputError):
        with pytest.raises(kind) as caught:
            table.get("Coop")
    assert str(caught.value) == "unknown trainer 'Coop'. Did you mean 'CoOp'? Choices: CoOp."


def test_log_file_is_a_copy_and_is_never_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    console = sys.stdout
    utils.setup_logger(str(tmp_path / "out"))
    print("first run")
    sys.stdout.close()
    sys.stdout = console
    for _ in range(2):  # within one second: both go to the same dated file
        utils.setup_logger(str(tmp_path / "out"))
        print("later run")
        sys.stdout.close()
        sys.stdout = console
    print("after")
    names = sorted(os.listdir(tmp_path / "out"))
    texts = [(tmp_path / "out" / name).read_text() for name in names]
    assert names[0] == "log.txt"
    assert texts[0] == "first run\n"
    assert all(name.startswith("log.txt-20") for name in names[1:])
    assert "".join(texts[1:]) == "later run\n" * 2
    assert capsys.readouterr().out == "first run\nlater run\nlater run\nafter\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, a disk that is full")
def test_full_disk_ends_the_log_file_but_not_the_run(capsys, monkeypatch):
    log = utils.Logger("/dev/full")
    monkeypatch.setattr(sys, "stdout", log)
    print("first")
    print("second")
    log.close()
    fault = "log file /dev/full can no longer be written: [Errno 28] No space left on device"
    assert capsys.readouterr().out == f"first\n{fault}\nsecond\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, a disk that is full")
@pytest.mark.parametrize("action", ["flush", "close"])
def test_full_disk_met_when_the_rest_is_written(action, capsys):
    log = utils.Logger("/dev/full")
    log.write("no line end")
    getattr(log, action)()
    log.close()
    assert capsys.readouterr().out.count("can no longer be written: ") == 1


def test_meters():
    meter = utils.AverageMeter()
    meter.update(torch.tensor(4.0), n=3)
    meter.update(0.0)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0.0, 3.0, 12.0, 4)
    smooth = utils.AverageMeter(ema=True)
    smooth.update(10.0)
    smooth.update(10.0)
    assert smooth.avg == pytest.approx(1.9)
    metrics = utils.MetricMeter(delimiter=" | ")
    metrics.update({"loss": 1.0, "acc": 50})
    metrics.update({"loss": 2.0})
    metrics.update(None)
    assert str(metrics) == "loss 2.0000 (1.5000) | acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="got float"):
        metrics.update(1.0)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "split.json"
    utils.write_json({"train": [1, "a"]}, path)
    assert path.read_text() == '{\n    "train": [\n        1,\n        "a"\n    ]\n}'
    with pytest.raises(TypeError):
        utils.write_json({"train": object()}, path)
    assert utils.read_json(path) == {"train": [1, "a"]}
    assert os.listdir(path.parent) == ["split.json"]
    path.write_text("{")
    with pytest.raises(utils.InputError, match=r"split\.json is not a JSON file"):
        utils.read_json(path)


def test_listing_is_sorted_without_hidden_files(tmp_path):
    for name in ("b", ".hidden", "a", "C"):
        (tmp_path / name).touch()
    assert utils.listdir_nohidden(tmp_path) == ["C", "a", "b"]
    with pytest.warns(UserWarning, match="no file at"):
        assert utils.check_isfile(str(tmp_path / "d")) is False


def test_seeding_repeats_all_generators():
    import random

    draws = []
    for _ in range(2):
        utils.set_random_seed(5)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert f"torch: {torch.__version__.split('+')[0]}" in utils.collect_env_info()


def _state(model, epoch: int, **more):
    return {"state_dict": model.state_dict(), "epoch": epoch, **more}


def test_checkpoint_files_pointer_and_best(tmp_path, capsys):
    model = nn.Linear(2, 3)
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    state = {"state_dict": wrapped, "epoch": 3, "val_result": np.float64(81.25)}
    utils.save_checkpoint(state, str(tmp_path), is_best=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-3"]
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-3\n"
    assert f"Checkpoint saved to {tmp_path}/model.pth.tar-3\n" in capsys.readouterr().out
    for name in ("model-best.pth.tar", "model.pth.tar-3"):
        loaded = torch.load(tmp_path / name, weights_only=True)
        assert list(loaded["state_dict"]) == ["weight", "bias"]
        assert loaded["val_result"] == 81.25
        assert type(loaded["val_result"]) is float
    assert list(state["state_dict"]) == ["module.weight", "module.bias"]  # left as it was


def test_a_failed_save_leaves_the_old_file(tmp_path):
    utils.save_checkpoint(_state(nn.Linear(1, 1), 1), str(tmp_path))
    before = (tmp_path / "model.pth.tar-1").read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        utils.save_checkpoint(_state(nn.Linear(1, 1), 1, bad=lambda: 0), str(tmp_path))
    assert (tmp_path / "model.pth.tar-1").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-1"]


class _Evil:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def test_loading_refuses_code_and_names_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Evil()}, "evil.pth")
    with pytest.raises(utils.InputError, match=r"cannot load the checkpoint evil\.pth"):
        utils.load_checkpoint("evil.pth")
    assert not os.path.exists("unpickled")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        utils.load_checkpoint("cut.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at none\.pth"):
        utils.load_checkpoint("none.pth")


def test_pretrained_weights_fit_by_name_and_shape(tmp_path, capsys):
    source = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    target = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    utils.save_checkpoint(_state(source, 1), str(tmp_path))
    utils.load_pretrained_weights(target, str(tmp_path / "model.pth.tar-1"))
    assert torch.equal(target[0].weight, source[0].weight)
    assert "another shape): ['1.weight', '1.bias']" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="no tensor of .* fits"):
        utils.load_pretrained_weights(nn.Conv2d(1, 1, 1), str(tmp_path / "model.pth.tar-1"))


def test_opening_layers_and_counting():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    utils.open_specified_layers(model, "0")
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]
    assert [child.training for child in model] == [True, False]
    utils.open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    with pytest.raises(utils.ChoiceError, match=r"unknown layer '2'\. Choices: 0, 1\."):
        utils.open_specified_layers(model, "2")
    assert utils.count_num_param(model) == 15
    weights = list(model[0].parameters())
    assert utils.count_num_param(params=[{"params": weights}, {"params": weights[0]}]) == 15
    utils.init_network_weights(model, "xavier", gain=1.0)
    assert model[0].bias.abs().sum() == 0
    assert torch.equal(model[1].weight, torch.ones(3))
