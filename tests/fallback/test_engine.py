"""Trainers: hook order, log lines, files, resuming, errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from dassl.engine import SimpleNet, SimpleTrainer, TrainerBase, build_trainer
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.utils import ChoiceError, InputError, MissingFileError, set_random_seed
from torch import nn

from tests.fallback.places import FALLBACK
from tests.fallback.toys import toy_config, train_toy, write_images


@pytest.fixture
def cfg(tmp_path):
    write_images(tmp_path / "images")
    return toy_config(tmp_path / "images", tmp_path / "out")


LINE = re.compile(
    r"epoch \[(\d)/2\] batch \[(\d)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) "
    r"data \d+\.\d{3} \(\d+\.\d{3}\) loss \d+\.\d{4} \(\d+\.\d{4}\) "
    r"acc \d+\.\d{4} \(\d+\.\d{4}\) lr (\d\.\d{4}e[-+]\d\d) eta \d+:\d\d:\d\d"
)


def test_log_lines_and_files(cfg, tmp_path, capsys):
    trainer = train_toy(cfg)
    out = capsys.readouterr().out
    # every second batch of three; the rate is that after the epoch's last step
    assert LINE.findall(out) == [("1", "2", "5.0000e-03"), ("2", "2", "2.5000e-03")]
    folder = tmp_path / "out" / "toy_net"
    order = [
        "Loading trainer: ToyX",
        "Loading dataset: Toy",
        "Building transform_train",
        "Building transform_test",
        "Loading evaluator: Classification",
        "No checkpoint found, train from scratch",
        f"Initialize tensorboard (log_dir={tmp_path}/out/tensorboard)",
        f"Checkpoint saved to {folder}/model.pth.tar-2",
        "Finish training",
        "Deploy the last-epoch model",
        "Evaluate on the *test* set",
        "=> result",
        "* total: 9",
        "Elapsed: 0:00:0",
    ]
    assert sorted(out.index(line) for line in order) == [out.index(line) for line in order]
    assert sorted(os.listdir(folder)) == ["checkpoint", "model.pth.tar-2"]
    assert len(trainer.history) == 6


def test_learns_and_reports_the_counted_accuracy(cfg, capsys):
    cfg.OPTIM.MAX_EPOCH, cfg.DATASET.NUM_SHOTS = 15, -1
    cfg.INPUT.TRANSFORMS = ("normalize",)
    trainer = train_toy(cfg)
    assert sum(trainer.history[-3:]) < 0.5 * sum(trainer.history[:3])
    batch = next(iter(trainer.test_loader))
    with torch.no_grad():
        right = trainer.model(batch["img"]).argmax(1) == batch["label"]
    capsys.readouterr()
    accuracy = trainer.test()
    assert accuracy == pytest.approx(100 * right.float().mean().item(), abs=1e-4)
    assert f"* accuracy: {accuracy:.1f}%\n" in capsys.readouterr().out


def test_an_interrupted_run_continues_as_if_it_had_not_been(cfg, tmp_path):
    cfg.TRAIN.CHECKPOINT_FREQ = 1
    cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.MAX_EPOCH = 1, 3
    whole = train_toy(cfg)

    class Stop(Exception):
        pass

    def stop():
        if trainer.epoch == 2:
            raise Stop

    cfg.OUTPUT_DIR = str(tmp_path / "stopped")
    set_random_seed(1)
    trainer = build_trainer(cfg)
    trainer.before_epoch = stop
    with pytest.raises(Stop):
        trainer.train()
    assert trainer.history == whole.history[:6]
    generators = torch.get_rng_state()
    set_random_seed(1)  # the same few-shot sample
    trainer = build_trainer(cfg)
    torch.set_rng_state(generators)
    trainer.train()
    assert trainer.start_epoch == 2
    assert trainer.history == whole.history[6:]
    assert trainer.sched.get_last_lr() == whole.sched.get_last_lr()


def test_best_model_is_the_one_with_the_best_val_result(cfg, tmp_path, capsys):
    cfg.TEST.FINAL_MODEL, cfg.OPTIM.MAX_EPOCH = "best_val", 3
    trainer = build_trainer(cfg)
    results = iter([40.0, 60.0, 50.0])
    real_test = trainer.test
    trainer.test = lambda split=None: next(results) if split == "val" else real_test(split)
    trainer.train()
    assert trainer.best_result == 60.0
    out = capsys.readouterr().out
    path = tmp_path / "out" / "toy_net" / "model-best.pth.tar"
    assert f"Load {path} to toy_net (epoch=2, val_result=60.0)\n" in out
    trainer.load_model(str(tmp_path / "out"), epoch=3)
    assert f"{path.parent}/model.pth.tar-3 to toy_net (epoch=3)\n" in capsys.readouterr().out
    with pytest.raises(MissingFileError, match=r"no model at .*model\.pth\.tar-7"):
        trainer.load_model(str(tmp_path / "out"), epoch=7)


def test_val_split_falls_back_to_test(cfg, capsys):
    cfg.TEST.SPLIT = "val"
    trainer = build_trainer(cfg)
    trainer.test()
    assert "Evaluate on the *val* set" in capsys.readouterr().out
    trainer.val_loader = None
    trainer.test()
    assert "Evaluate on the *test* set" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "number"), [("train_x", 3), ("train_u", 2), ("smaller_one", 2)])
def test_labelled_and_unlabelled_batches(cfg, count, number):
    cfg.TRAINER.NAME, cfg.TRAIN.COUNT_ITER, cfg.OPTIM.MAX_EPOCH = "ToyXU", count, 1
    assert len(train_toy(cfg).history) == number


def test_unknown_trainer_and_count(cfg):
    cfg.TRAINER.NAME = "ToyZ"
    with pytest.raises(ChoiceError, match=r"unknown trainer 'ToyZ'\. Did you mean 'ToyX"):
        build_trainer(cfg)
    cfg.TRAINER.NAME, cfg.TRAIN.COUNT_ITER = "ToyXU", "all"
    with pytest.raises(ChoiceError, match=r"COUNT_ITER 'all'.*smaller_one, train_u, train_x"):
        train_toy(cfg)


def test_hook_order_and_registration():
    calls = []

    class Recorder(TrainerBase):
        def __getattribute__(self, name):
            if name.split("_")[0] in ("before", "after", "run"):
                return lambda: calls.append(name)
            return super().__getattribute__(name)

    Recorder().train(1, 3)
    epoch = ["before_epoch", "run_epoch", "after_epoch"]
    assert calls == ["before_train", *epoch, *epoch, "after_train"]

    trainer = TrainerBase()
    trainer.register_model("a", nn.Linear(1, 1))
    with pytest.raises(InputError, match="'a' is already registered"):
        trainer.register_model("a")
    with pytest.raises(AttributeError, match="super"):
        TrainerBase.__new__(TrainerBase).register_model("a")
    with pytest.raises(KeyError, match=r"unknown model 'b'\. Choices: a\."):
        trainer.get_model_names("b")
    with pytest.raises(KeyError, match="unknown mode 'fast'"):
        trainer.set_model_mode("fast")
    trainer.set_model_mode("test")
    assert trainer._models["a"].training is False
    with pytest.raises(FloatingPointError):
        trainer.model_backward(torch.tensor(float("nan"), requires_grad=True))
    trainer.update_lr()  # no schedule, no optimiser: nothing to do
    trainer.model_backward_and_update(torch.ones(1, requires_grad=True).sum())


class FlatBackbone(Backbone):
    def __init__(self, pretrained: bool):
        super().__init__()
        self._out_features = 3

    def forward(self, x):
        return x.mean((2, 3))


def test_simple_trainer_builds_the_configured_net(cfg):
    if "FlatBackbone" not in BACKBONE_REGISTRY.registered_names():
        BACKBONE_REGISTRY.register(FlatBackbone)
    cfg.MODEL.BACKBONE.NAME = "FlatBackbone"
    cfg.MODEL.HEAD.NAME, cfg.MODEL.HEAD.HIDDEN_LAYERS = "mlp", (5, 4)
    trainer = SimpleTrainer(cfg)
    # 3*5+5 + norm 10, 5*4+4 + norm 8, 4*3+3
    assert sum(p.numel() for p in trainer.model.parameters()) == 20 + 10 + 24 + 8 + 15
    assert trainer.get_current_lr() == 0.005
    assert trainer.model.fdim == 4
    logits, features = trainer.model.eval()(torch.rand(2, 3, 8, 8), return_feature=True)
    assert logits.shape == (2, 3)
    assert features.shape == (2, 4)
    assert torch.equal(trainer.model.classifier(features), logits)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED = "resnet18", False
    cfg.MODEL.HEAD.NAME = ""
    resnet = SimpleNet(cfg, cfg.MODEL, 0)
    assert resnet.fdim == 512
    assert resnet.classifier is None


def test_stands_alone_and_imports_lightly():
    code = (
        "import sys, dassl.engine as e, dassl.data, dassl.optim\n"
        "heavy = {'sklearn', 'tensorboard', 'gdown', 'scipy', 'dplq'} & set(sys.modules)\n"
        "print(sorted(heavy), e.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(FALLBACK)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == "[]"
    assert str(FALLBACK) in done.stdout
