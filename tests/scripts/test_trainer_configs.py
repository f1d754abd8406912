"""configs/trainers: the files that the scripts use exist, and all of them load."""

from pathlib import Path

import pytest
import yaml

import dplq.plugin  # noqa: F401  (registers the trainers)
from dplq.errors import UserError
from dplq.experiments import protocols
from dplq.experiments.requests.common_settings import node_of
from dplq.host.config import extend_cfg, merge_file
from dplq.host.dassl import registered_trainers
from dplq.io.protocols import PROTOCOLS, Entry, read_protocols
from tests.peers import peer

PROJECT = Path(__file__).resolve().parents[2]


TRAINERS = protocols.trainers()
BACKBONES = {  # first word of a config's name -> its backbone and image size
    "demo": ("demo", (64, 64)),
    "biomedclip": ("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", (224, 224)),
}


def test_every_registered_trainer_has_configs_and_the_listed_order():
    assert TRAINERS == [
        "ZeroshotCLIP",
        "ZeroshotCLIP2",
        "LinearProbe",
        "GDA",
        "TipAdapter",
        "TipAdapterF",
        "LPPlusPlus",
        "CLAP",
        "TaskRes",
        "CLIPAdapter",
        "SSText",
        "TextMap",
        "CoOp",
        "CoCoOp",
        "KgCoOp",
        "ProGrad",
        "TCP",
        "BiomedCoOp",
        "VPT",
        "IVLP",
        "MaPLe",
        "PromptSRC",
        "DCPL",
        "QuaternionPrompt",
        "CLIPLoRA",
        "CLIPSVD",
        "TwoStage",
        "GDPL",
    ]
    assert set(TRAINERS) == {trainer.__name__ for trainer in registered_trainers()}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_has_the_configs_that_the_scripts_use(trainer):
    wanted = {"demo"} | {
        protocols.default_config(trainer, protocol, shots)
        for protocol in PROTOCOLS
        for shots in (1, 2, 4, 8, 16, -1)
    }
    there = {path.stem for path in (PROJECT / "configs/trainers" / trainer).glob("*.yaml")}
    assert wanted <= there


@pytest.mark.parametrize("trainer", registered_trainers(), ids=lambda trainer: trainer.__name__)
def test_properties_are_those_of_the_classes(trainer):
    """The data file says what the scripts need to know without importing torch."""
    name = trainer.__name__
    assert protocols.has_property(name, "trained") == (trainer.fixed_epochs != 0)
    assert protocols.has_property(name, "any_classes") == trainer.model_class.any_classes


@pytest.mark.parametrize("trainer", registered_trainers(), ids=lambda trainer: trainer.__name__)
def test_keys_for_all_trainers_at_once_are_those_of_the_settings(trainer):
    """--depth and --precision set them without torch: another one needs a line in the data file."""
    name = trainer.__name__
    fields = trainer.model_class.settings_class.config_fields()
    layers = {
        own.name.upper()
        for own in fields
        if own.type == "int" and ("depth" in own.name or "layer" in own.name)
    }
    assert set(read_protocols().get(name, Entry()).depth) == layers
    assert node_of(name) == trainer.node


def test_few_shot_configs_of_coop_follow_the_shots():
    """CoOp's own scripts: 50 epochs for 1 shot, 100 for 2 and 4, 200 for 8 and 16."""
    chosen = [protocols.default_config("CoOp", "few_shot", shots) for shots in (1, 2, 4, 8, 16)]
    assert chosen == ["vit_b16_ep50", "vit_b16_ep100", "vit_b16_ep100", "vit_b16", "vit_b16"]


def test_an_unlisted_trainer_uses_its_only_config(tmp_path):
    for name in ("Mine/tiny.yaml", "Mine/demo.yaml", "Other/demo.yaml", "CoOp/x.yaml"):
        path = tmp_path / "trainers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert protocols.trainers([tmp_path]) == ["CoOp", "Mine", "Other"]
    assert protocols.default_config("Mine", "base2new", 16, [tmp_path]) == "tiny"
    assert protocols.default_config("Other", "few_shot", 1, [tmp_path]) == "demo"
    (tmp_path / "trainers/Mine/second.yaml").touch()
    with pytest.raises(UserError) as caught:
        protocols.default_config("Mine", "base2new", 16, [tmp_path])
    assert "Mine has no default config: set CFG" in str(caught.value)
    assert "Choices: second, tiny." in str(caught.value)


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "configs/trainers").glob("*/*.yaml")), ids=name_of
)
def test_trainer_configs_load_and_set_their_own_keys_only(path):
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_file(cfg, str(path))
    content = yaml.safe_load(path.read_text())
    assert list(content["TRAINER"]) == [path.parent.name.upper().replace("CLIP2", "CLIP")]
    expected = BACKBONES.get(path.stem.split("_")[0], ("ViT-B/16", (224, 224)))
    assert expected == (cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE)


BIOMEDCOOP = {  # our config -> BiomedCoOp's, for the trainers that both have
    "CoOp/biomedclip_c4_ep50_batch32": "CoOp/vit_b16_base2new",
    "CoOp/biomedclip_c4_ep100_batch32": "CoOp/vit_b16",
    "CoCoOp/biomedclip_c4_ep10_batch1": "CoCoOp/vit_b16_base2new",
    "KgCoOp/biomedclip_c4_ep50_batch128": "KgCoOp/vit_b16_base2new",
    "KgCoOp/biomedclip_c4_ep100_batch128": "KgCoOp/few_shot/busi",
    "ProGrad/biomedclip_c4_ep50_batch128": "ProGrad/vit_b16_base2new",
    "ProGrad/biomedclip_c4_ep100_batch128": "ProGrad/few_shot/btmri",
    "BiomedCoOp/biomedclip_c4_ep50_batch4": "BiomedCoOp/base_to_novel/btmri",
    "BiomedCoOp/biomedclip_c4_ep100_batch4": "BiomedCoOp/few_shot/btmri",
}


@pytest.mark.parametrize(("ours", "theirs"), BIOMEDCOOP.items())
def test_biomedclip_configs_train_as_biomedcoop_does(ours, theirs):
    folders = PROJECT / "configs/trainers", peer("BiomedCoOp") / "configs/trainers"
    mine, original = (
        yaml.safe_load((folder / f"{name}.yaml").read_text())
        for folder, name in zip(folders, (ours, theirs), strict=True)
    )
    for node in ("DATALOADER", "INPUT", "OPTIM", "TRAIN"):
        assert mine[node] == original[node], node
    own, keys = (next(iter(content["TRAINER"].values())) for content in (mine, original))
    chosen_for_every_dataset = {"W", "T", "SCCM_LAMBDA", "KDSP_LAMBDA", "TAU"}
    same = keys.keys() - chosen_for_every_dataset - {"NAME", "CSC"}
    assert {key: own[key] for key in same} == {key: keys[key] for key in same}
