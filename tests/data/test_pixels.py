"""`check` measures pixels: statistics, near-duplicates, and what is reported of them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance

from dplq.data.pixels import (
    Look,
    look,
    looks,
    near_duplicates,
    pixel_findings,
    similarity,
    statistics,
)
from dplq.images.reader import ImageFacts
from dplq.images.settings import ReadSettings

NAMES = ["forest", "river"]
RGB = "8-bit RGB"


def scene(seed: int, size: int = 224) -> Image.Image:
    """Return random patches with texture, in colour."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(20, 220, (7, 7, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    noise = rng.normal(0, 8, (size, size, 1))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def scan(seed: int, size: int = 224) -> Image.Image:
    """Return a bright oval with random contents on black, as in a slice of the head."""
    y, x = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
    body = (x / 0.6) ** 2 + (y / 0.8) ** 2 < 1
    grey = np.asarray(scene(seed, size).convert("L"), dtype=np.float64) * 0.6 + 60
    return Image.fromarray(np.where(body, grey, 0).astype(np.uint8)).convert("RGB")


def saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def shifted(image: Image.Image) -> Image.Image:
    return ImageChops.offset(image, 1, 0).crop((1, 0, image.width, image.height))


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.05)


def written(path, image) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return str(path)


def measured(tmp_path, images) -> dict[str, Look]:
    for name, image in images.items():
        written(tmp_path / name, image)
    found, problems = looks(images, str(tmp_path), progress=False)
    assert problems == {}
    return found


def facts(kind: str = RGB, width: int = 100, height: int = 100, **others) -> ImageFacts:
    values = {"steps": (), "low": None, "high": None, "most": None, "span": None}
    values |= {"frames": 1, "bands": 3}
    return ImageFacts(
        kind=kind, width=width, height=height, **{**values, "orientation": 1, **others}
    )


def a_look(**others) -> Look:
    """Return statistics of a picture in which nothing is odd, that is like no other."""
    values = {"facts": facts(), "mean": 120.0, "spread": 40.0, "white": 0.0, "black": 0.0}
    return Look(**{**values, "coloured": True, "small": "", **others})


def reported(found, parts=None, **others):
    """Return the findings of images called `<class>/...`, as problems with remedy, and notes."""
    labels = {path: NAMES.index(path.split("/")[0]) for path in found}
    problems, notes = pixel_findings(found, labels, NAMES, parts or {}, **others)
    return [f"{what} -> {remedy}" for what, remedy in problems], notes


def plain(count: int = 4, **others) -> dict[str, Look]:
    """Return odd-free statistics of `count` images per class, with different means."""
    paths = [f"{name}/{i}.png" for name in NAMES for i in range(count)]
    return {path: a_look(mean=100.0 + i, **others) for i, path in enumerate(paths)}


# Statistics


def test_statistics_of_an_image(tmp_path):
    image = scene(0, 96)
    image.paste((255, 255, 255), (0, 0, 48, 24))  # 1/8 of it
    image.paste((0, 0, 0), (48, 0, 96, 96))  # 1/2 of it
    result = look(written(tmp_path / "x.png", image))
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    assert result.mean == pytest.approx(grey.mean(), abs=1e-4)
    assert result.spread == pytest.approx(grey.std(), abs=1e-4)
    assert (result.white, result.black) == (1 / 8, 1 / 2)
    assert result.coloured
    assert (result.facts.width, result.facts.height) == (96, 96)
    assert len(bytes.fromhex(result.small)) == 32 * 32
    json.dumps(result)


def test_one_full_channel_is_neither_white_nor_black(tmp_path):
    red = look(written(tmp_path / "x.png", Image.new("RGB", (8, 8), (255, 0, 0))))
    assert (red.white, red.black, red.coloured) == (0, 0, True)


def test_statistics_of_a_large_image_are_of_a_sample(tmp_path):
    image = scene(0, 800)
    image.paste((255, 255, 255), (0, 0, 800, 600))
    result = look(written(tmp_path / "x.png", image))
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    assert result.white == pytest.approx(3 / 4, abs=0.005)
    assert result.mean == pytest.approx(grey.mean(), rel=0.01)
    assert result.spread == pytest.approx(grey.std(), rel=0.01)
    assert (result.facts.width, result.facts.height) == (800, 800)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_has_no_small_version(tmp_path, value):
    result = look(written(tmp_path / "x.png", Image.new("L", (40, 40), value)))
    assert (result.mean, result.spread, result.coloured) == (value, 0, False)
    assert (result.white, result.black) == (value == 255, value == 0)
    assert result.small == ""


@pytest.mark.parametrize("size", [32, 64, 1024, 2080])
def test_the_small_version_is_an_average(tmp_path, size):
    cells = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    image = Image.fromarray(cells).resize((size, size), Image.Resampling.NEAREST)
    small = bytes.fromhex(look(written(tmp_path / "x.png", image)).small)
    inner = np.frombuffer(small, dtype=np.uint8).reshape(8, 4, 8, 4)[:, 1:3, :, 1:3]
    assert np.abs(inner - cells[:, None, :, None].astype(float)).max() <= 1


def test_unreadable_images_are_problems(tmp_path):
    written(tmp_path / "good.png", scene(0, 40))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    found, problems = looks(["text.png", "good.png", "empty.jpg", "gone.png"], str(tmp_path))
    assert list(found) == ["good.png"]
    assert list(problems) == ["empty.jpg", "gone.png", "text.png"]
    assert problems["gone.png"].startswith("cannot be opened: No such file")
    assert all("\n" not in problem for problem in problems.values())


def test_an_error_of_a_decoder_is_one_line(monkeypatch, tmp_path):
    def fail(path, settings):
        raise ZeroDivisionError(f"{path}\nline 2")

    monkeypatch.setattr(statistics, "read_with_facts", fail)
    assert look(str(tmp_path / "x.png")) == "ZeroDivisionError: x.png line 2"


# Near-duplicates


@pytest.mark.parametrize("change", [saved_again, halved, shifted, brighter])
@pytest.mark.parametrize("kind", [scene, scan])
def test_changed_copies_are_found(tmp_path, kind, change):
    originals = {f"{seed}.png": kind(seed) for seed in range(8)}
    copies = {f"copy_{name}": change(image) for name, image in originals.items()}
    pairs, is_complete = near_duplicates(measured(tmp_path, originals | copies))
    assert pairs == [(name, f"copy_{name}") for name in originals]
    assert is_complete


def test_different_pictures_of_a_kind_are_no_copies(tmp_path):
    images = {f"{kind.__name__}{i}.png": kind(i, 64) for kind in (scene, scan) for i in range(30)}
    # The same seed gives the same contents, once in an oval.
    assert near_duplicates(measured(tmp_path, images)) == ([], True)


def test_two_details_of_one_scan_are_no_copies(tmp_path):
    """The head is the same, a third of it is another: as in two patients."""
    one, other = scan(0), scan(0)
    other.paste(scan(1).crop((72, 60, 152, 160)), (72, 60))
    assert near_duplicates(measured(tmp_path, {"1.png": one, "2.png": other})) == ([], True)


def test_nearly_constant_images_are_no_copies(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(100, 103, (64, 64), dtype=np.uint8) for _ in range(6)]
    images = {f"{i}.png": Image.fromarray(pixels) for i, pixels in enumerate(noise)}
    assert near_duplicates(measured(tmp_path, images)) == ([], True)


def in_hex(small: np.ndarray) -> str:
    return np.clip(np.rint(small), 0, 255).astype(np.uint8).tobytes().hex()


def test_similarity_is_the_mean_correlation_of_windows():
    """Of windows with strong contrast; a change of brightness and contrast does not count."""
    rng = np.random.default_rng(1)
    one, other = rng.uniform(20, 120, (2, 32, 32))
    contrast, detail = similarity.window_vectors(map(in_hex, (one, other, 2 * one - 20)))
    windows = [(slice(y, y + 4), slice(x, x + 4)) for y in range(0, 32, 4) for x in range(0, 32, 4)]
    expected = [np.corrcoef(one[window].ravel(), other[window].ravel())[0, 1] for window in windows]
    assert contrast[0] @ contrast[1] == pytest.approx(np.mean(expected), abs=0.01)
    assert contrast[0] @ contrast[2] == pytest.approx(1, abs=0.001)
    assert detail[0] @ detail[2] == pytest.approx(1, abs=0.001)
    assert np.linalg.norm(contrast, axis=1) == pytest.approx(1)


def test_a_plane_has_no_detail():
    y, x = np.mgrid[:32, :32]
    _, detail = similarity.window_vectors([in_hex(4 * x + 3 * y), in_hex(np.full((32, 32), 9))])
    assert np.abs(detail).max() < 1e-3


def shaded(seed: int, size: int) -> Image.Image:
    """Return a gradient, always the same, with grain."""
    grain = np.random.default_rng(seed).normal(0, 20, (size, size))
    grey = 40 + 150 * np.linspace(0, 1, size)[:, None] + grain
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [64, 224, 512, 800])
def test_one_shading_makes_no_copies(tmp_path, size):
    images = {f"{seed}.png": shaded(seed, size) for seed in range(4)}
    copy = {"0_copy.png": images["0.png"].point(lambda value: value * 0.95 + 10)}
    pairs, _ = near_duplicates(measured(tmp_path, images | copy))
    assert pairs == [("0.png", "0_copy.png")]


@pytest.mark.parametrize(
    ("noise", "edge", "limit", "is_found"),
    [
        (9, 64, 0.93, True),
        (14, 64, 0.93, False),
        (6, 63, 0.97, True),
        (9, 63, 0.97, False),  # few pixels have little detail
    ],
)
def test_threshold_of_the_similarity(noise, edge, limit, is_found):
    rng = np.random.default_rng(2)
    small = rng.normal(128, 32, 1024)
    pair = [in_hex(small), in_hex(small + rng.normal(0, noise, 1024))]
    one, other = similarity.window_vectors(pair)[0]
    assert abs(one @ other - limit) < 0.04
    assert bool(one @ other > limit) is is_found
    size = {"facts": facts(width=edge, height=200)}
    found = {"0": a_look(small=pair[0]), "1": a_look(small=pair[1], **size)}
    assert near_duplicates(found)[0] == [("0", "1")] * is_found


def many_copies(count: int) -> dict[str, Look]:
    rng = np.random.default_rng(3)
    kinds = [in_hex(rng.integers(0, 256, 1024)) for _ in range(3)]
    return {f"{i:02}": a_look(small=kinds[i % 3]) for i in range(count)}


@pytest.mark.parametrize("block", [1, 40, 2**20])
def test_blocks_do_not_change_the_pairs(monkeypatch, block):
    monkeypatch.setattr(similarity, "BLOCK", block)
    pairs, is_complete = near_duplicates(many_copies(12))
    assert pairs == [(f"{i:02}", f"{j:02}") for i in range(12) for j in range(i + 3, 12, 3)]
    assert is_complete


def test_the_search_ends_at_many_pairs(monkeypatch):
    monkeypatch.setattr(similarity, "MAX_PAIRS", 5)
    found = many_copies(12)
    pairs, is_complete = near_duplicates(found)
    assert (len(pairs), is_complete) == (5, False)
    labelled = {f"forest/{path}": one for path, one in found.items()}
    problems, notes = reported(labelled)
    assert problems == []
    assert notes[-1].startswith("at least 5 near-duplicate pair(s) within one class: ")


def copies(*paths: str) -> dict[str, Look]:
    same = in_hex(np.random.default_rng(4).integers(0, 256, 1024))
    return {path: a_look(mean=float(i), small=same) for i, path in enumerate(paths)}


def test_near_duplicates_across_parts():
    parts = {"forest/1.png": "train", "forest/2.png": "test", "forest/3.png": "train"}
    problems, notes = reported(copies(*parts), parts)
    assert problems == [
        "2 near-duplicate pair(s) across train, val and test, with 1 image(s) of val and test: "
        "forest/1.png (train) ~ forest/2.png (test), forest/2.png (test) ~ forest/3.png (train). "
        "-> They inflate the test accuracy. Compare them, then delete one of each pair, or keep "
        "the images of one subject or scene in one part by DATASET.GROUP."
    ]
    assert notes[-1] == ("1 near-duplicate pair(s) within one part: forest/1.png ~ forest/3.png.")


def test_near_duplicates_in_two_classes():
    parts = dict.fromkeys(("forest/1.png", "river/2.png"), "train")
    problems, _ = reported(copies(*parts), parts)
    assert problems == [
        "1 near-duplicate pair(s) in two classes: forest/1.png ('forest') ~ river/2.png ('river'). "
        "-> Compare them: only one class can be right, delete the others."
    ]
    both, _ = reported(copies(*parts), {**parts, "river/2.png": "val"})
    assert [text.split(":")[0] for text in both] == [
        "1 near-duplicate pair(s) across train, val and test, with 1 image(s) of val and test",
        "1 near-duplicate pair(s) in two classes",
    ]


def test_files_with_equal_bytes_are_not_repeated():
    parts = {"forest/1.png": "train", "forest/2.png": "test", "forest/3.png": "val"}
    found = copies(*parts)
    assert reported(found, parts, already={frozenset(parts)}) == (
        [],
        ["All 3 images are 8-bit RGB."],
    )
    problems, _ = reported(found, parts, already={frozenset(["forest/1.png", "forest/2.png"])})
    assert problems[0].startswith("2 near-duplicate pair(s) across train, val and test, with 2 ")


# Problems and notes


def test_nothing_odd():
    assert reported(plain()) == ([], ["All 8 images are 8-bit RGB."])
    assert reported({}) == ([], [])


@pytest.mark.parametrize(
    ("share", "value", "text"),
    [
        ("white", 0.91, "more than 90% of the pixels white: forest/0.png (91.0%)"),
        ("white", 0.9, ""),
        ("black", 0.985, "more than 98% of the pixels black: forest/0.png (98.5%)"),
        ("black", 0.97, ""),  # a small body in a large CT
    ],
)
def test_saturated_images(share, value, text):
    found = plain()
    found["forest/0.png"] = found["forest/0.png"]._replace(**{share: value})
    problems, _ = reported(found)
    assert len(problems) == bool(text)
    if text:
        assert problems[0].startswith(f"1 saturated image(s), {text}; per class: 'forest' 1. -> ")


def test_constant_images_are_reported_once():
    found = plain(3)
    white = {"spread": 0.99, "white": 1.0, "mean": 255.0}
    found |= {f"river/{i}.png": a_look(**white) for i in range(3)}
    problems, _ = reported(found)
    assert problems == [
        "3 constant image(s), standard deviation below 1 of 255: river/0.png (grey value 255), "
        "river/1.png (grey value 255), river/2.png (grey value 255); per class: 'river' 3. -> "
        "Delete them or get them again; if the values use a small part of the format's range, set "
        "INPUT.WINDOW."
    ]
    assert reported(plain(spread=1.0))[0] == []


def test_a_class_of_equal_images(tmp_path):
    images = {f"river/{i}.png": scene(0, 48) for i in range(3)}
    images |= {f"forest/{i}.png": scene(i + 1, 48) for i in range(3)}
    equal = {frozenset(path for path in images if path.startswith("river"))}
    problems, _ = reported(measured(tmp_path, images), already=equal)
    assert problems == [
        "All 3 images of class 'river' have equal pixels: river/0.png, river/1.png, river/2.png. "
        "-> Get the images of this class again."
    ]


def with_kinds(counts: dict[str, tuple[int, int]]) -> dict[str, Look]:
    """Return so many images of each kind in the two classes."""
    found: dict[str, Look] = {}
    for kind, per_class in counts.items():
        for name, count in zip(NAMES, per_class, strict=True):
            for _ in range(count):
                one = a_look(facts=facts(kind), mean=float(len(found)))
                found[f"{name}/{len(found):03}.png"] = one
    return found


def test_kinds_that_tell_the_class():
    problems, notes = reported(with_kinds({"16-bit grey": (10, 0), RGB: (0, 10)}))
    assert problems == [
        "The kind of image tells classes apart: 16-bit grey are 10 of 10 of 'forest', but 0 of 10 "
        "of 'river'; 8-bit RGB are 10 of 10 of 'river', but 0 of 10 of 'forest'. -> A model learns "
        "the format instead of the content: bring all images to one format, and take the classes "
        "from one source if you can."
    ]
    assert notes == [
        "Kinds of images: 16-bit grey 10, 8-bit RGB 10; per class: 'forest' 16-bit grey 10; "
        "'river' 8-bit RGB 10."
    ]


@pytest.mark.parametrize(
    ("counts", "is_problem"),
    [
        ({"16-bit grey": (10, 1), RGB: (0, 9)}, True),
        ({"16-bit grey": (9, 1), RGB: (1, 9)}, True),
        ({"16-bit grey": (8, 0), RGB: (2, 10)}, False),
        ({"16-bit grey": (10, 2), RGB: (0, 8)}, False),
        ({"16-bit grey": (5, 5), RGB: (5, 5)}, False),
        ({"16-bit grey": (4, 0), RGB: (0, 4)}, True),
        ({"16-bit grey": (3, 0), RGB: (0, 3)}, False),  # of few images, chance
    ],
)
def test_threshold_of_kinds(counts, is_problem):
    problems, notes = reported(with_kinds(counts))
    assert bool(problems) is is_problem
    assert notes[0].startswith("Kinds of images: ")


def test_colour_that_tells_the_class():
    found = plain()
    found |= {p: one._replace(coloured=False) for p, one in found.items() if p[0] == "r"}
    problems, _ = reported(found)
    assert problems[0].startswith(
        "Colour tells classes apart: in colour are 4 of 4 of 'forest', but 0 of 4 of 'river'; "
        "without colour are 4 of 4 of 'river', but 0 of 4 of 'forest'. -> A model learns"
    )


def test_file_types_and_sizes_that_tell_the_class():
    found = {f"forest/{i}.png": a_look(mean=float(i)) for i in range(4)}
    found |= {
        f"river/{i}.{e}": a_look(facts=facts(width=90))
        for i, e in enumerate(["jpg", "JPEG", "jpe", "jfif"])
    }
    problems, notes = reported(
        {p: one._replace(mean=float(i)) for i, (p, one) in enumerate(found.items())}
    )
    assert problems == []
    assert notes[1:] == [
        "The file type tells classes apart: .jpg are 4 of 4 of 'river', but 0 of 4 of 'forest'; "
        ".png are 4 of 4 of 'forest', but 0 of 4 of 'river'. Compression and scaling leave traces "
        "that a model can learn instead of the content.",
        "The size tells classes apart: 100x100 px are 4 of 4 of 'forest', but 0 of 4 of 'river'; "
        "90x100 px are 4 of 4 of 'river', but 0 of 4 of 'forest'. Compression and scaling leave "
        "traces that a model can learn instead of the content.",
    ]


@pytest.mark.parametrize(
    ("width", "height", "text"),
    [
        (400, 100, ""),
        (201, 200, "number of pixels is more than 4 times, or less than 1/4 of, the median"),
        (49, 50, "number of pixels is more than 4 times, or less than 1/4 of, the median"),
        (201, 50, "aspect ratio is more than 4 times, or less than 1/4 of, the median"),
        (50, 201, "aspect ratio is more than 4 times, or less than 1/4 of, the median"),
    ],
)
def test_sizes_far_from_the_median(width, height, text):
    found = plain()
    found["river/0.png"] = a_look(facts=facts(width=width, height=height))
    problems, notes = reported(found)
    assert problems == []
    expected = f"1 image(s) whose {text}: river/0.png ({width}x{height} px); per class: 'river' 1."
    assert notes[1:] == ([expected] if text else [])


def test_tiny_images():
    found = plain()
    found["river/0.png"] = a_look(facts=facts(width=60, height=31))
    assert reported(found)[1][-1] == (
        "1 image(s) with an edge below 32 px: river/0.png (60x31 px); per class: 'river' 1."
    )
    found["river/0.png"] = a_look(facts=facts(width=60, height=42))
    assert len(reported(found)[1]) == 1


def test_what_the_reader_did_frames_and_bands():
    found = plain()
    turned = facts(steps=("turned upright by EXIF orientation",), orientation=6)
    for path in ("river/0.png", "river/1.png", "forest/0.png"):
        found[path] = found[path]._replace(facts=turned)
    found["forest/1.png"] = a_look(facts=facts(frames=12))
    found["forest/2.png"] = a_look(facts=facts(bands=13))
    found["forest/3.png"] = a_look(facts=facts("8-bit RGB with alpha", bands=4))
    found["river/3.png"] = a_look(facts=facts("8-bit CMYK", bands=4))
    problems, notes = reported(found)
    assert problems == []
    assert notes[1:] == [
        "3 image(s): turned upright by EXIF orientation; per class: 'river' 2, 'forest' 1.",
        "1 image(s) with several frames or pages: forest/1.png (12); per class: 'forest' 1.",
        "1 image(s) with more than three bands: forest/2.png (13); per class: 'forest' 1.",
    ]


def test_a_range_that_is_hardly_used(tmp_path):
    images = {}
    for i in range(8):
        grey = np.asarray(scene(i, 64).convert("L"), dtype=np.uint16) * 16  # 12 of 16 bits
        images[f"{NAMES[i % 2]}/{i}.png"] = Image.fromarray(grey)
    found = measured(tmp_path, images)
    problems, notes = reported(found)
    assert len(problems) == 1
    assert "INPUT.WINDOW" in problems[0]
    assert problems[0].endswith(" -> No run starts before this is fixed.")
    assert notes[0] == "All 8 images are 16-bit grey."
    settings = ReadSettings(window=(0, 4095))
    windowed, _ = looks(images, str(tmp_path), settings, progress=False)
    assert reported(windowed, settings=settings)[0] == []
    assert np.mean([one.spread for one in windowed.values()]) > 10 * np.mean(
        [one.spread for one in found.values()]
    )


def test_kinds_of_real_files(tmp_path):
    """16-bit grey scans of one class, colour pictures of the other; some with a tag or alpha."""
    images = {f"forest/{i}.png": scan(i, 64).convert("L") for i in range(5)}
    images = {p: Image.fromarray(np.asarray(i, dtype=np.uint16) * 257) for p, i in images.items()}
    images |= {f"river/{i}.png": scene(i + 10, 64) for i in range(5)}
    images["river/0.png"].putalpha(128)
    found = measured(tmp_path, images)
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(30, 64).save(tmp_path / "river" / "turned.jpg", exif=exif)
    found |= looks(["river/turned.jpg"], str(tmp_path))[0]
    problems, notes = reported(found)
    assert len(problems) == 1
    assert problems[0].startswith(
        "The kind of image tells classes apart: 16-bit grey are 5 of 5 of 'forest', but 0 of 6 of "
        "'river'. ->"
    )
    text = "\n".join(notes)
    assert "turned upright" in text
    assert "alpha" in text
    assert "bands" not in text, "alpha is none"
