"""Settings: one home for each default, from which config, help text and docs are made."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from yacs.config import CfgNode

import dplq.plugin  # noqa: F401  (registers the trainers)
from dplq.errors import UserError
from dplq.host.config import all_keys, extend_cfg, trainer_keys
from dplq.host.dassl import registered_trainers
from dplq.methods.coop import CoOpModel, CoOpSettings
from dplq.methods.presets import PRESETS, PresetSettings
from dplq.methods.prompt_learner import QuaternionPromptSettings
from dplq.methods.promptsrc import PromptSRCSettings
from dplq.methods.registry import METHODS
from dplq.methods.settings import MethodSettings, option
from dplq.methods.zeroshot import ZeroshotSettings
from tests.runner import train
from tools.make_settings_table import PATH, settings_page

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = {cls.settings_class for cls in METHODS.values()}
NAMES = {field.name for cls in SETTINGS for field in fields(cls)}


def new_config() -> CfgNode:
    cfg = CfgNode({"TRAINER": {}, "DATASET": {}})
    extend_cfg(cfg)
    return cfg


@pytest.mark.parametrize("trainer", registered_trainers(), ids=lambda cls: cls.__name__)
def test_config_nodes_are_the_settings_classes(trainer):
    node = dict(new_config().TRAINER[trainer.node])
    assert node.pop("PREC") == trainer.prec
    own = trainer.model_class.settings_class
    assert node == {field.name.upper(): field.default for field in own.config_fields()}


def test_another_default_changes_config_help_and_docs(monkeypatch):
    @dataclass(frozen=True)
    class Changed(CoOpSettings):
        n_ctx: int = option(7, "something else")

    monkeypatch.setattr(CoOpModel, "settings_class", Changed)
    assert new_config().TRAINER.COOP.N_CTX == 7
    (coop,) = (cls for cls in registered_trainers() if cls.__name__ == "CoOp")
    assert ("TRAINER.COOP.N_CTX", 7, "something else") in trainer_keys(coop)
    page = settings_page()
    assert page != PATH.read_text(encoding="utf-8")
    assert "something else" in page


def test_the_page_of_settings_is_up_to_date():
    assert PATH.read_text(encoding="utf-8") == settings_page(), (
        "run python -m tools.make_settings_table"
    )


def test_help_of_a_trainer_lists_its_keys(tmp_path):
    done = train(tmp_path / "log", ["--trainer", "MaPLe", "--help"])
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    for name, default, text in [*trainer_keys(registered("MaPLe")), *all_keys()[:3]]:
        assert any(
            line.startswith(name) and repr(default) in line and line.rstrip().endswith(text)
            for line in lines
        ), name


def registered(name):
    return next(cls for cls in registered_trainers() if cls.__name__ == name)


def literal_defaults(path: Path) -> set[str]:
    """Names of settings that a file gives a value of its own: in a signature or a class body."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            positional = [*arguments.posonlyargs, *arguments.args]
            pairs = [
                *zip(positional[::-1], arguments.defaults[::-1], strict=False),
                *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
            ]
            named = [(argument.arg, value) for argument, value in pairs]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            named = [(node.target.id, node.value)]
        elif isinstance(node, ast.Dict):
            keys = (key.value for key in node.keys if isinstance(key, ast.Constant))
            named = [
                (str(key).rpartition(".")[2], value)
                for key, value in zip(keys, node.values, strict=False)
            ]
            named = [(key.lower(), value) for key, value in named if key.isupper()]
        else:
            continue
        found |= {
            name
            for name, value in named
            if name in NAMES and isinstance(value, ast.Constant) and value.value is not None
        }
    return found


def test_no_setting_has_a_default_in_a_second_place():
    homes = {
        str(path.relative_to(PROJECT)): names
        for folder in ("dplq/methods", "dplq/host", "dplq/cli", "dplq/clip", "trainers")
        for path in (PROJECT / folder).rglob("*.py")
        if (names := literal_defaults(path))
    }
    assert homes == {}


def test_a_second_place_would_be_found(tmp_path):
    text = (
        "def f(n_ctx=2, *, other=1): ...\nclass A:\n    prompt_depth: int = 9\nK = {'T.N.CSC': 1}\n"
    )
    (tmp_path / "a.py").write_text(text)
    assert literal_defaults(tmp_path / "a.py") == {"n_ctx", "prompt_depth", "csc"}


def test_every_preset_sets_the_same_switches():
    (switches,) = {frozenset(values) for values in PRESETS.values()}
    followed = {field.name for field in fields(QuaternionPromptSettings) if field.default is None}
    assert switches == followed
    assert {f.name for f in fields(PresetSettings)} - {"preset"} < followed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"residual": "false"}, "RESIDUAL is 'false'; write True or False."),
        ({"noise": 1}, "NOISE is 1; write True or False."),
        ({"fusion": "summ"}, "FUSION 'summ' is unknown. Did you mean 'sum'?"),
        ({"preset": "defualt"}, "PRESET 'defualt' is unknown. Did you mean 'default'?"),
        ({"layer": "conv"}, "LAYER 'conv' is unknown. Choices: dense, quaternion."),
        ({"n_ctx": "2"}, "N_CTX is '2'; it must be a whole number."),
        ({"n_ctx": 2.0}, "N_CTX is 2.0; it must be a whole number."),
        ({"n_ctx": None}, "N_CTX is None; it must be a whole number."),
        ({"n_ctx": True}, "N_CTX is True; it must be a whole number."),
        ({"ctx_init": None}, "CTX_INIT is None; it must be a text."),
    ],
)
def test_wrong_values_are_named_by_their_key(given, message):
    with pytest.raises(UserError) as caught:
        QuaternionPromptSettings(**given)
    assert message in str(caught.value)


def test_numbers_and_lists():
    assert PromptSRCSettings(text_loss_weight=1).text_loss_weight == 1
    with pytest.raises(UserError, match="TEXT_LOSS_WEIGHT is 'x'; it must be a number"):
        PromptSRCSettings(text_loss_weight="x")
    with pytest.raises(UserError, match=r"TEMPLATES is 'a {}.'; it must be a list of texts"):
        ZeroshotSettings(templates="a {}.")


def test_minimum_and_types_without_postponed_annotations():
    @dataclass(frozen=True)
    class Plain(MethodSettings):
        size: int = option(1, "a size", minimum=0)

    Plain.__dataclass_fields__["size"].type = int
    assert Plain(size=0).size == 0
    with pytest.raises(UserError, match="SIZE is -1; it must be at least 0"):
        Plain(size=-1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        Plain(sizes=2)
