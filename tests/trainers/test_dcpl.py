"""DCPL: equal to the authors' trainer with PRESET reference; its switches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from dplq.methods.dcpl import DCPLModel
from dplq.methods.maple import MaPLeModel
from dplq.methods.public_checkpoints import PublicFormat
from dplq.trainers._engine.base import PromptTrainer
from tests.peers import peer
from tests.references.originals import Bench, Case
from tests.references.run_original import FEATURE_DIM, domain_features, run_trainers
from tests.runner import make_project, train
from tests.tiny import tiny_backbone
from tests.trainers import parity

KEYS = {"N_CTX": 2, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 2}
CASE = Case("DCPL", "DCPL", "DCPL", {**KEYS, "PRESET": "reference"})
LAYOUT = PublicFormat(
    "",
    {
        r"prompt_learner\.meta_net\.linear1\.(weight|bias)": r"meta_net.0.\1",
        r"prompt_learner\.meta_net\.linear2\.(weight|bias)": r"meta_net.2.\1",
        r"visual_net\.linear1\.(weight|bias)": r"visual_net.0.\1",
        r"visual_net\.linear2\.(weight|bias)": r"visual_net.2.\1",
        **MaPLeModel.public.names,
    },
)


class Domain(nn.Module):
    """The domain encoder of `run_original`."""

    feature_dim, spec = FEATURE_DIM, {"name": "test"}

    def forward(self, images: Tensor) -> Tensor:
        return domain_features(images)


def test_equals_the_authors_trainer(tmp_path, monkeypatch):
    """Logits with noise, gradients, every loss, one step's weights and those after three."""
    tree, bench = peer("DCPL"), Bench(tmp_path, layers=2, image_size=32)
    nodes = {"MAPLE": {**KEYS, "PREC": "fp32"}, "COCOOP": {"PREC": "fp32"}}
    run = parity.run(bench, CASE, epochs=1, per_epoch=3, trainer=nodes)
    run.cls = "MaPLe"  # the name in their file
    (answer,) = run_trainers(tree, {}, [run])
    monkeypatch.setattr(PromptTrainer, "after_epoch", lambda self: None)
    monkeypatch.setattr("dplq.trainers.dcpl.load_domain", lambda *args: Domain())
    trainer = bench.ours(CASE)
    parity.assert_same(trainer, run, answer, LAYOUT.translate)


NAMES = ["forest", "parking_lot", "storage tank"]
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def model(**settings):
    """A small DCPL whose adapters do something."""
    made = DCPLModel(tiny_backbone(), Domain(), NAMES, prompt_depth=3, n_ctx=2, seed=0, **settings)
    made.noise_generator = torch.Generator()
    return made


def logits(made, images=IMAGES, training=False, seed=0):
    made.noise_generator.manual_seed(seed)
    with torch.no_grad():
        return made.train(training)(images)


def test_what_is_learned():
    learned = dict(model().prompt_learner.named_parameters())
    layers = ("meta_net.0", "meta_net.2", "visual_net.0", "visual_net.2", "vision_proj")
    layers += ("vision.0", "vision.1")
    names = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert learned.keys() == names | {"ctx", "deep_text.0", "deep_text.1"}
    # Both adapters' hidden layers are a sixteenth of their outputs, 64 and 48 wide here.
    sizes = [(learned[f"{net}.2.weight"].shape) for net in ("meta_net", "visual_net")]
    assert sizes == [(64, 4), (48, 3)]
    assert not learned["vision.0.weight"].equal(learned["vision.1.weight"])
    cloned = dict(model(clone_init=True).prompt_learner.named_parameters())
    assert cloned["vision.0.weight"].equal(cloned["vision.1.weight"])


def test_without_its_adapters_it_is_maple():
    made = model()
    for net in (made.prompt_learner.meta_net, made.prompt_learner.visual_net):
        nn.init.zeros_(net[2].weight)
        nn.init.zeros_(net[2].bias)
    maple = MaPLeModel(made.clip, NAMES, prompt_depth=3, n_ctx=2, seed=1)
    maple.prompt_learner.load_state_dict(made.prompt_learner.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(logits(made), maple(IMAGES))


def test_every_weight_has_a_part():
    made = model()
    made(IMAGES).square().sum().backward()
    for name, parameter in made.prompt_learner.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_noise_in_training_only():
    made = model()
    assert logits(made, seed=1).equal(logits(made, seed=2))
    assert not logits(made, training=True, seed=1).equal(logits(made, training=True, seed=2))
    silent = model(noise=False)
    assert logits(silent, training=True).equal(logits(made))
    loud = model(preset="reference", clone_init=False)
    switches = {"preset": "reference", "noise_scale": "batch", "noise_at_test": True}
    assert loud.settings == {**made.settings, **switches}
    assert not logits(loud, seed=1).equal(logits(loud, seed=2))


@pytest.mark.parametrize(("scale", "alone"), [("image", True), ("batch", False)])
def test_an_image_does_not_see_its_batch(scale, alone):
    """With the release's scale of the noise it does."""
    made = model(noise_scale=scale)
    first = logits(made, training=True)[0]
    other = torch.cat([IMAGES[:1], 3 * IMAGES[1:]])
    assert torch.allclose(first, logits(made, other, training=True)[0], rtol=1e-5) == alone


def test_command_line(tmp_path):
    flags = make_project(tmp_path)
    flags[flags.index("--trainer") + 1] = "DCPL"
    options = ["TRAINER.DCPL.PROMPT_DEPTH", "2", "OPTIM.MAX_EPOCH", "1"]
    options += ["DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES"]
    folder = str(tmp_path / "base")
    done = train(tmp_path / "log", [*flags, "--output-dir", folder, *options, "base"])
    assert done.code == 0, done.err
    assert "Loading domain encoder (clip)" in done.out
    flags += ["--eval-only", "--model-dir", folder, "--output-dir", str(tmp_path / "new")]
    done = train(tmp_path / "log", [*flags, *options, "new"])
    assert done.code == 0, done.err
    assert "(epoch = 1)" in done.out
    flags[-1] = str(tmp_path / "other")
    done = train(tmp_path / "log", [*flags, "DOMAIN.ENCODER", "none", *options, "new"])
    assert done.code == 2
    assert "DCPL needs a domain encoder" in done.err
    done = train(tmp_path / "log", [*flags, "TRAINER.DCPL.NOISE", "yes", *options, "new"])
    assert done.code == 2
    assert "NOISE is 'yes'; write True or False" in done.err
