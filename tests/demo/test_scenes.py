"""The demo's pictures and captions: reproducible, complete, and not told apart by colour alone."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dplq.demo import AERIAL_CLASSES, LOOKS, TISSUE_CLASSES, caption, draw_scene, render
from dplq.demo.canvas import SIDE
from dplq.demo.captions import count_phrase, synonyms
from dplq.demo.looks import STYLES, TISSUE_STYLES, colour_name, colours
from dplq.demo.materials import Material
from dplq.errors import UserError

ALL_CLASSES = AERIAL_CLASSES + TISSUE_CLASSES
# Scenes are whole numbers, so their checksums hold on every machine; pixels are rounded floats.
RECORDED = {
    ("farmland", 0): 3059043982,
    ("lake", 1): 3313099665,
    ("airport", 2): 2475270905,
    ("mountain", 3): 1990475706,
    ("parking lot", 4): 1016440017,
    ("lymphocytes", 5): 1548163266,
    ("stroma", 6): 3398473070,
}


def pixels(classname: str, look: str, seed: int) -> np.ndarray:
    return np.asarray(render(classname, look, seed).image)


def test_class_tables():
    assert len(AERIAL_CLASSES) == 20
    assert len(TISSUE_CLASSES) == 8
    assert len(set(ALL_CLASSES)) == 28
    assert AERIAL_CLASSES[:3] == ("farmland", "forest", "river")
    assert set(synonyms()) == set(ALL_CLASSES)


@pytest.mark.parametrize(("classname", "seed"), RECORDED)
def test_scenes_are_the_recorded_ones(classname, seed):
    material = draw_scene(classname, seed).material
    assert material.dtype == np.uint8
    assert material.shape == (SIDE, SIDE)
    assert zlib.crc32(material.tobytes()) == RECORDED[classname, seed]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("classname", ALL_CLASSES)
def test_every_class_renders_in_both_looks(classname, look):
    seen = set()
    for seed in range(5):
        scene = render(classname, look, seed)
        assert scene.image.size == (64, 64)
        assert scene.image.mode == "RGB"
        assert np.asarray(scene.image).std() > 2
        assert scene.facts["look"] == look
        assert len(scene.facts["colours"]) <= 3
        seen.add(scene.image.tobytes())
    assert len(seen) == 5


@pytest.mark.parametrize("classname", ALL_CLASSES)
def test_palettes_cover_what_scenes_use(classname):
    family = "aerial" if classname in AERIAL_CLASSES else "tissue"
    used = {
        Material(m) for seed in range(10) for m in np.unique(draw_scene(classname, seed).material)
    }
    for look in LOOKS:
        assert used <= set(colours(family, look))


def test_same_key_same_picture_here_and_in_another_process():
    code = "from dplq.demo import render; import zlib;"
    code += "print(zlib.crc32(render('harbor', 'domain', 7).image.tobytes()))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = render("harbor", "domain", 7).image.tobytes()
    assert zlib.crc32(here) == int(other.stdout)
    assert here == render("harbor", "domain", 7).image.tobytes()


def test_looks_share_a_scene_but_not_colours():
    general, domain = render("lake", "general", 3), render("lake", "domain", 3)
    assert general.facts["counts"] == domain.facts["counts"]
    assert general.facts["clutter"] == domain.facts["clutter"]
    assert general.image.tobytes() != domain.image.tobytes()


def test_infrared_turns_woods_red_and_ultrasound_is_nearly_grey():
    woods = np.mean([pixels("forest", "domain", s).mean((0, 1)) for s in range(20)], 0)
    assert woods[0] > woods[1] + 10
    assert woods[0] > woods[2] + 8
    spread = [np.ptp(pixels("stroma", "domain", s).mean((0, 1))) for s in range(10)]
    assert max(spread) < 20


@pytest.mark.parametrize("size", [32, 96, 128])
def test_other_sizes(size):
    assert render("airport", "general", 0, size=size).image.size == (size, size)


def test_bad_arguments_are_explained():
    with pytest.raises(UserError, match=r"Unknown demo class 'rivr'.*Did you mean 'river'"):
        render("rivr", "general", 0)
    with pytest.raises(UserError, match=r"Unknown look 'domian'.*Did you mean 'domain'"):
        render("river", "domian", 0)
    with pytest.raises(UserError, match="size=500: demo pictures have 8 to 128"):
        render("river", "domain", 0, size=500)


def test_counts_in_the_facts_are_what_was_drawn():
    for seed in range(10):
        number = draw_scene("tennis court", seed).facts["counts"]["court"]
        assert number in (1, 2, 3, 4, 6)
    assert [count_phrase(n, "tank") for n in (1, 2, 10)] == ["one tank", "two tanks", "many tanks"]


def test_colour_names():
    named = {
        (0.9, 0.1, 0.1): "red", (0.1, 0.6, 0.1): "green", (0.1, 0.2, 0.8): "blue",
        (0.05, 0.05, 0.05): "black", (0.95, 0.95, 0.95): "white", (0.5, 0.5, 0.5): "gray",
        (0.5, 0.35, 0.25): "brown", (0.9, 0.8, 0.6): "beige", (0.95, 0.5, 0.75): "pink",
    }  # fmt: skip
    assert {rgb: colour_name(*rgb) for rgb in named} == named


@pytest.mark.parametrize("classname", ALL_CLASSES)
def test_captions_name_the_class_or_a_synonym(classname):
    facts = render(classname, "general", 1).facts
    captions = [caption(classname, facts, np.random.default_rng(seed)) for seed in range(200)]
    assert captions == [
        caption(classname, facts, np.random.default_rng(seed)) for seed in range(200)
    ]
    words = (classname, *synonyms()[classname])
    assert all(any(word in line for word in words) for line in captions)
    assert np.mean([classname in line for line in captions]) > 0.65
    assert len(set(captions)) > 40
    assert np.mean([f"a photo of a {classname}." == line for line in captions]) > 0.1


def test_every_style_can_be_captioned():
    generator = np.random.default_rng(0)
    facts = {"season": "winter", "colours": [], "counts": {}, "clutter": []}
    for family, table in (("aerial", STYLES), ("tissue", TISSUE_STYLES)):
        for style in (name for look in LOOKS for name in table[look]):
            facts |= {"family": family, "style": style}
            lines = [caption("island", facts, generator) for _ in range(50)]
            assert not any("{" in line for line in lines)


def test_colour_alone_does_not_tell_the_classes():
    """Six numbers, mean and spread of the channels, must stay far from solving the task."""
    moments = np.array(
        [
            [np.r_[p.mean((0, 1)), p.std((0, 1))] for p in (pixels(c, "general", s),)]
            for s in range(30)
            for c in AERIAL_CLASSES
        ]
    )[:, 0]
    labels = np.tile(np.arange(20), 30)
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    accuracy = judge.fit(moments[:400], labels[:400]).score(moments[400:], labels[400:])
    assert accuracy < 0.4
