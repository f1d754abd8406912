"""`dplq models`, and the one command `dplq`."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from dplq import __main__ as command
from dplq.cli.models import main
from dplq.models import download
from dplq.models.catalogue import catalogue
from tests.data.web import Site, serve

CONTENT = b"weights" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def change(monkeypatch):
    """Replace fields of a model of the catalogue."""

    def replace(name, **fields):
        models = dict(catalogue())
        models[name] = msgspec.structs.replace(models[name], **fields)
        for place in ("dplq.models.download", "dplq.models.weights", "dplq.cli.models"):
            monkeypatch.setattr(f"{place}.catalogue", lambda: models)

    return replace


def test_list_can_be_narrowed(caches, capsys):
    assert main(["list", "--domain", "medical", "--kind", "clip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[2:]]
    expected = [n for n, m in catalogue().items() if (m.kind, m.domain) == ("clip", "medical")]
    assert names == expected
    assert "gated" in next(line for line in lines if line.startswith("medsiglip-448"))
    assert "remoteclip" not in "\n".join(lines)


def test_info_says_what_is_not_known(caches, capsys):
    assert main(["info", "PLIP"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("plip: PLIP ViT-B/32\n")
    assert "  licence       not known\n" in text
    assert "  sha256        not known\n" in text
    assert "  activation    quickgelu\n" in text
    assert "  on disk       no\nRun `dplq models get plip`" in text


def test_info_says_how_medsam_s_images_are_scaled(caches, capsys):
    assert main(["info", "medsam-vit-b"]) == 0
    assert "  mean, std     each image scaled to 0..1\n" in capsys.readouterr().out


def test_a_model_on_disk_is_not_downloaded_again(caches, capsys):
    folder = caches / "dplq/models/biomedclip"
    folder.mkdir(parents=True)
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"")
    assert main(["get", "BiomedCLIP"]) == 0
    path = folder / "open_clip_pytorch_model.bin"
    assert capsys.readouterr().out == (
        f"biomedclip is in {path}. Licence: MIT (hub).\n"
        f"Use it:\n  MODEL.BACKBONE.NAME biomedclip\n  MODEL.INIT_WEIGHTS {path}\n"
    )


def test_get_says_how_where_it_cannot(caches, capsys):
    assert main(["get", "medsam-vit-b"]) == 1
    text = capsys.readouterr().out
    start = "medsam-vit-b has no automatic download: put the file medsam_vit_b.pth from "
    assert text.startswith(start)
    assert str(caches / "dplq/models/medsam-vit-b") in text


def test_get_from_an_address(caches, capsys, change):
    with serve(Site({"/mae.pth": CONTENT})) as site:
        change("mae-vit-b", url=f"{site.address}/mae.pth", file="mae.pth", sha256=DIGEST)
        assert main(["get", "mae-vit-b", "--to", str(caches / "here")]) == 0
    path = caches / "here/mae.pth"
    assert path.read_bytes() == CONTENT
    assert f"DOMAIN.ENCODER mae-vit-b\n  DOMAIN.WEIGHTS {path}\n" in capsys.readouterr().out


@pytest.mark.parametrize("digest", ["0" * 64, "01234567"], ids=["whole", "beginning"])
def test_a_file_with_another_digest_is_deleted(caches, capsys, change, digest):
    with serve(Site({"/mae.pth": CONTENT})) as site:
        change("mae-vit-b", url=f"{site.address}/mae.pth", file="mae.pth", sha256=digest)
        assert main(["get", "mae-vit-b"]) == 2
    message = capsys.readouterr().err
    assert DIGEST in message
    assert digest in message
    assert not (caches / "dplq/models/mae-vit-b/mae.pth").exists()


def test_a_zip_is_unpacked_to_its_weights_file(caches, capsys, change):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("run/readme.txt", "x")
        archive.writestr("run/epoch_20.pt", CONTENT)
    with serve(Site({"/sky.zip": buffer.getvalue()})) as site:
        change("skyclip-vit-b-32", url=f"{site.address}/sky.zip")
        assert main(["get", "skyclip-vit-b-32"]) == 0
    folder = caches / "dplq/models/skyclip-vit-b-32"
    assert (folder / "sky.pt").read_bytes() == CONTENT
    assert not (folder / "sky.zip").exists()
    assert str(folder / "sky.pt") in capsys.readouterr().out


def test_only_its_own_file_counts_as_unpacked(caches, capsys, change):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("epoch_20.pt", CONTENT)
    folder = caches / "here"
    folder.mkdir()
    (folder / "another.pt").write_bytes(b"other")
    with serve(Site({"/sky.zip": buffer.getvalue()})) as site:
        change("skyclip-vit-b-32", url=f"{site.address}/sky.zip")
        assert main(["get", "skyclip-vit-b-32", "--to", str(folder)]) == 0
    assert (folder / "sky.pt").read_bytes() == CONTENT
    (folder / "sky.pt").write_bytes(b"<!DOCTYPE html><html>")
    capsys.readouterr()
    assert main(["get", "skyclip-vit-b-32", "--to", str(folder)]) == 2
    assert "sky.pt' holds a web page, no weights: delete it and" in capsys.readouterr().err


def test_no_network_is_one_message(caches, capsys, change, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    change("mae-vit-b", url="http://127.0.0.1:1/mae.pth")
    assert main(["get", "mae-vit-b"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: 'mae-vit-b' cannot be downloaded: ")
    folder = caches / "dplq/models/mae-vit-b"
    assert (
        f"put the file mae_pretrain_vit_base.pth from http://127.0.0.1:1/mae.pth into {folder}"
        in message
    )


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub needs of the hub: all files but one; a repository is gated."""

    etag = DIGEST
    absent = "spiece.model"

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        errors = {"MahmoodLab": (403, "GatedRepo"), self.absent: (404, "EntryNotFound")}
        found = next((error for part, error in errors.items() if part in self.path), None)
        self.send_response(found[0] if found else 200)
        if found:
            self.send_header("X-Error-Code", found[1])
        else:
            self.send_header("X-Repo-Commit", "abc")
            self.send_header("ETag", f'"{self.etag}"')
        content = b"" if found else CONTENT
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def run_on(hub: str, folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dplq models` with another hub, whose address is fixed at import."""
    own = {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "hf"), "DPLQ_CACHE": str(folder / "dplq")}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    line = [sys.executable, "-m", "dplq", "models", *arguments]
    return subprocess.run(line, env={**os.environ, **own}, capture_output=True, text=True)


def test_get_from_the_hub(hub, tmp_path):
    done = run_on(hub, tmp_path, "get", "plip")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "hf/hub").glob("models--vinid--plip/snapshots/*/pytorch_model.bin")
    assert path.read_bytes() == CONTENT
    assert f"MODEL.BACKBONE.NAME plip\n  MODEL.INIT_WEIGHTS {path}\n" in done.stdout


def test_the_files_of_a_tokenizer_come_along(hub, tmp_path):
    done = run_on(hub, tmp_path, "get", "medsiglip-448", "--to", str(tmp_path / "here"))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "here").iterdir() if path.is_file()}
    assert names == {"model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_the_tokenizer_of_another_repository_goes_to_the_cache(hub, tmp_path):
    done = run_on(hub, tmp_path, "get", "unimed-clip-vit-b-16", "--to", str(tmp_path / "here"))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "here").iterdir() if path.is_file()}
    assert names == {"unimed-clip-vit-b16.pt"}
    cached = (tmp_path / "hf/hub").glob("models--microsoft--BiomedNLP*/snapshots/*/vocab.txt")
    assert len(list(cached)) == 1


def test_the_hubs_own_digest_is_compared(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "etag", "f" * 64)
    done = run_on(hub, tmp_path, "get", "plip", "--to", str(tmp_path / "here"))
    assert done.returncode == 2
    assert f"its sha256 is {DIGEST}, not {'f' * 64}" in done.stderr
    assert not (tmp_path / "here/pytorch_model.bin").exists()


def test_a_gated_model_says_what_to_accept(hub, tmp_path):
    done = run_on(hub, tmp_path, "get", "conch")
    assert done.returncode == 2
    assert (
        "open https://huggingface.co/MahmoodLab/conch with your account there and accept"
        in (done.stderr.splitlines()[-1])
    )
    assert "hf auth login" in done.stderr


def test_dplq_lists_its_commands(capsys):
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  ", text, re.MULTILINE) == list(command.COMMANDS)


@pytest.mark.parametrize("argv", [[], ["modles"]])
def test_dplq_refuses_what_it_does_not_know(argv, capsys):
    assert command.main(argv) == 2
    assert f"Choices: {', '.join(sorted(command.COMMANDS))}." in capsys.readouterr().err


@pytest.mark.parametrize("name", command.COMMANDS)
def test_dplq_hands_over_to_each_command(name, capsys):
    try:
        code = command.main([name, "--help"])
    except SystemExit as ended:  # argparse's
        code = ended.code
    assert code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: dplq {name} ")
    assert f"\n    dplq {name} " in text or f"\n    dplq {name}\n" in text  # an example


def test_help_imports_no_command():
    code = "import sys; from dplq.__main__ import main; main(['-h']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert {name for name in loaded if name.startswith("dplq")} == {"dplq", "dplq.__main__"}
    assert not {"torch", "yaml", "msgspec", "argparse"} & set(loaded)
