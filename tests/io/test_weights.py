"""Reading of foreign checkpoints: what may stand beside the tensors, and around them."""

from __future__ import annotations

import logging
import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from dplq.clip.backbone import load_backbone
from dplq.domain.load import load_domain_encoder
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.weights import private_rng, read_content, read_state_dict
from dplq.methods.public_checkpoints import read_public
from tests.tiny import tiny_backbone

STATE = {"a.weight": torch.ones(2), "a.bias": torch.zeros(3)}
OTHER = {key: value + 1 for key, value in STATE.items()}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 598641023\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def renamed(path, old: bytes, new: bytes):
    """Write a checkpoint's pickle with another module name, as another version of numpy does."""
    target = path.with_name("renamed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member).replace(old, new))
    return target


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_numbers_of_numpy_may_stand_beside_the_weights(tmp_path, module):
    path = tmp_path / "model.pt"
    numbers = {"best": np.float64(61.5), "step": np.int64(7), "done": np.bool_(True)}
    torch.save({"state_dict": {"weight": torch.ones(2)}, **numbers}, path)
    here = np.float64.__reduce__(np.float64(0))[0].__module__
    content = read_content(renamed(path, here.encode(), f"{module}.multiarray".encode()))
    assert {key: content[key] for key in numbers} == numbers


@pytest.mark.parametrize("value", [np.array([1.0]), np.array([print], dtype=object), np.dtype("O")])
def test_other_objects_of_numpy_may_not(tmp_path, value):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(2), "other": value}, path)
    with pytest.raises(UserError, match=r"seems to hold more than weights|cannot be read"):
        read_content(path)


class Foreign:
    """An object that no checkpoint may hold."""


def written(path, content):
    """Write bytes as they are, and anything else with torch.save; return the path."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


def error_of(read, path):
    """Return the text of the UserError that reading a file raises."""
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


def same(one, other):
    """Return whether two state dicts are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (LFS, "is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"),
        (PAGE, "is a web page, not a file of weights: the server answered the download with a"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page, not a file of"),
        (b'{"error": "not found"}\n', 'is text (\'{"error": "not found"}\'), not a file of weig'),
        (b"", "is empty: get the file again"),
    ],
    ids=["lfs", "html", "xml", "json", "empty"],
)
@pytest.mark.parametrize("read", [read_state_dict, read_public])
def test_what_is_not_weights_is_said(tmp_path, name, content, text, read):
    path = written(tmp_path / name, content)
    assert error_of(read, path).startswith(f"'{path}' {text}")


@pytest.mark.parametrize(
    ("content", "text"),
    [(LFS, "is a Git LFS pointer"), (PAGE, "is a web page")],
    ids=["lfs", "html"],
)
def test_checkpoints_of_this_project_say_so_as_well(tmp_path, content, text):
    """As the files of a shared model in a clone without `git lfs pull`."""
    path = written(tmp_path / "prompts.safetensors", content)
    assert error_of(checkpoint.read, path).startswith(f"{path} {text}")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "w.pt", "w.safetensors", "w"])
def test_safetensors_are_known_by_content(tmp_path, name):
    path = written(tmp_path / name, safetensors.torch.save(STATE))
    assert same(read_state_dict(path), STATE)


@pytest.mark.filterwarnings("ignore")  # torch's own, of a pickle protocol that there is not
def test_damaged_files_are_told_in_whole_sentences(tmp_path):
    path = written(tmp_path / "w.pt", b"PK\x03\x04 and no more")
    assert re.fullmatch(
        r"'.*w\.pt' cannot be read as a checkpoint \(RuntimeError: PytorchStreamReader failed "
        r"reading zip archive: [\w ]+\); expected safetensors, a TorchScript archive, or a state "
        r"dict of plain tensors\. Is the file complete\?",
        error_of(read_state_dict, path),
    )
    path = written(tmp_path / "x.pt", bytes(range(128, 256)))
    text = error_of(read_state_dict, path)
    assert "(UnpicklingError: Weights only load failed); expected safetensors, a Torch" in text
    path = written(tmp_path / "y.pt", STATE).rename(tmp_path / "y.safetensors")
    text = error_of(read_state_dict, path)
    assert text == f"'{path}' is a file of torch.save, not safetensors: rename it to end in .pt"


@pytest.mark.parametrize(("read", "key"), [(read_state_dict, "model"), (read_public, "state_dict")])
def test_the_advice_for_foreign_objects_fits_the_reader(tmp_path, read, key):
    path = written(tmp_path / "w.pt", {"state_dict": STATE, "args": Foreign()})
    text = error_of(read, path)
    assert text.endswith(f"load it elsewhere and save {{'{key}': state_dict}} alone")
    assert "Unsupported global: GLOBAL tests.io.test_weights.Foreign" in text
    assert "add_safe_globals" not in text
    read(written(path, {key: STATE}))


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("content", "prefix"),
    [
        (STATE, ""),
        ({"model": STATE, "optimizer": OPTIMIZER, "best": torch.ones(())}, ""),
        ({"model": {"state_dict": STATE}}, ""),
        ({"state_dict": {"model": {"model": STATE}}, "epoch": 3}, ""),
        ({"model": {"name": "vit", "depth": 12}, "state_dict": STATE}, ""),
        ({"network": {"state_dict": STATE}}, "network."),
        ({"network": STATE, "optimizer": OPTIMIZER}, "network."),
        ({"ckpt": {"network": STATE, "optim": {"all": OPTIMIZER}}}, "ckpt.network."),
    ],
)
def test_containers_at_any_depth(tmp_path, content, prefix):
    path = written(tmp_path / "w.pt", content)
    assert same(read_state_dict(path), {prefix + key: value for key, value in STATE.items()})


def test_a_dict_that_contains_itself_ends(tmp_path):
    content = {"state_dict": {}}
    content["state_dict"]["state_dict"] = content
    assert read_state_dict(written(tmp_path / "w.pt", content)) == {}


@pytest.mark.parametrize(
    ("content", "used", "left"),
    [
        ({"state_dict": STATE, "state_dict_ema": OTHER}, "state_dict", "'state_dict_ema', with"),
        (
            {"model_ema": {f"module.{key}": value for key, value in OTHER.items()}, "model": STATE},
            *("model", "'model_ema', with"),
        ),
        ({"model": STATE, "state_dict": OTHER, "ema": OTHER}, "model", "'state_dict' and 'ema', w"),
    ],
)
def test_the_log_says_which_of_several_copies_is_used(tmp_path, caplog, content, used, left):
    path = written(tmp_path / "w.pt", content)
    with caplog.at_level(logging.INFO, "dplq"):
        assert same(read_state_dict(path), STATE)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{path}: the weights in '{used}' are used; {left}")
    assert record.getMessage().endswith("save them alone, as {'model': state_dict}")


def test_containers_of_something_else_are_not_reported(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dplq"):
        read_state_dict(
            written(tmp_path / "w.pt", {"model": STATE, "loss": {"centre": torch.ones(2)}})
        )
    assert not caplog.records


@pytest.mark.parametrize("container", ["", "model_ema"])
def test_averaged_models_of_torch_are_loaded(tmp_path, container):
    """SWA and EMA: all keys begin with `module.`, but for the counter."""
    clip = tiny_backbone()
    state = torch.optim.swa_utils.AveragedModel(clip.clip).state_dict()
    assert "n_averaged" in state
    path = written(tmp_path / "swa.pt", {container: state} if container else state)
    again = load_backbone(clip.spec.name, weights=str(path))
    assert same(again.clip.state_dict(), clip.clip.state_dict())
    assert read_state_dict(written(path, {"n_averaged": torch.ones(()), **STATE})).keys() == {
        *("n_averaged", *STATE)  # no such file: then the name may be anything
    }


@pytest.mark.filterwarnings("ignore")  # torch's own, of sparse and quantised tensors
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda value: value.to_sparse(), "sparse (sparse_coo)"),
        (lambda value: value.to_sparse_csr(), "sparse (sparse_csr)"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantised"),
        (lambda value: value.to("meta"), "without data (device meta)"),
    ],
)
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path, make, what):
    clip = tiny_backbone()
    state = {**clip.clip.state_dict(), "text_projection": make(clip.clip.text_projection.detach())}
    path = written(tmp_path / "w.pt", {"state_dict": state})
    text = (
        f"'{path}' holds tensors that cannot be loaded: text_projection is {what}. Save them as "
        "plain, dense ones"
    )
    assert error_of(lambda p: load_backbone(clip.spec.name, weights=str(p)), path) == text
    assert error_of(read_public, path) == text


@pytest.mark.parametrize("seed", ["a", 1.5, None, True, -1, 2**63])
def test_a_seed_is_a_whole_number(seed):
    text = f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1."
    name = tiny_backbone().spec.name
    for load, of in ((load_backbone, name), (load_domain_encoder, "test_vit")):
        with pytest.raises(UserError) as caught:
            load(of, pretrained=False, seed=seed)
        assert str(caught.value) == text
    with private_rng(np.int64(3)):
        drawn = torch.rand(2)
    with private_rng(3):
        assert torch.equal(drawn, torch.rand(2))


class Writes(torch.nn.Module):
    """A module whose TorchScript runs when it is opened."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.weight = path, torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        return (self.path, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.path, self.training = state[0], state[2]
        written = torch.from_file(state[0], True, 2, dtype=torch.uint8)
        self.weight = state[1] + written.fill_(65).sum() * 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_archive_that_runs_code_is_not_opened(tmp_path):
    path, written = tmp_path / "clip.pt", tmp_path / "written"
    torch.jit.script(Writes(str(written))).save(str(path))
    with pytest.raises(UserError, match="it is a TorchScript archive that runs code when it is"):
        read_state_dict(path)
    assert not written.exists()
    torch.jit.load(str(path))  # so it would have
    assert written.read_bytes() == b"AA"
