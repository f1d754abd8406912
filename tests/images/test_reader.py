"""The image reader: every kind of file against other libraries, refusals, settings."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.image_kinds import BYTES, GREY, WORDS, kinds, measure, turned, turns
from dplq.errors import UserError
from dplq.images import rasters, reader
from dplq.images.reader import (
    EXTENSIONS,
    ImageFacts,
    ImageFile,
    beyond_window,
    read_image,
    read_with_facts,
    unused_range,
)
from dplq.images.settings import DEFAULTS, ReadSettings, changed_settings, read_settings

KINDS = {kind.name: kind for kind in kinds()}


def test_the_table_has_enough_kinds():
    assert len(KINDS) == len(kinds()) >= 30


@pytest.mark.parametrize("name", KINDS)
def test_what_the_model_gets_is_what_another_library_reads(name, tmp_path):
    kind = KINDS[name]
    row = measure(kind, tmp_path)
    assert row.difference <= (0 if kind.exact else 1)
    assert row.orientation == "upright"
    assert row.mean == pytest.approx(row.reference_mean, abs=0.5)
    assert row.spread > 20
    assert row.levels > 30 or "1-bit" in name or "orientation" in name or "animated" in name


def test_the_table_in_the_docs_has_these_kinds():
    page = Path(__file__).resolve().parents[2] / "docs/images.md"
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    listed = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert listed.keys() >= KINDS.keys()
    assert all(listed[name].endswith("| 0 |") for name in KINDS)


def refusal(path, settings=DEFAULTS):
    with pytest.raises(UserError) as caught:
        read_image(path, settings)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(f"{path} ")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".tif16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation, suffix, tmp_path):
    path = tmp_path / f"x{suffix.removesuffix('16')}"
    want = turned(orientation, suffix)(path)
    image, facts = read_with_facts(path)
    assert np.abs(np.asarray(image) - want).max() <= (1 if suffix == ".jpg" else 0)
    assert facts.orientation == orientation
    assert ("turned upright by EXIF orientation" in facts.steps) == (orientation > 1)
    assert (facts.width, facts.height) == image.size


def test_turns_are_those_of_the_standard():
    """Row 0 and column 0 of what is stored, by the words of EXIF: 6 is right, top."""
    stored = np.arange(6).reshape(2, 3)
    upright = turns(stored)
    assert upright[6].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert upright[8].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert upright[3].tolist() == [[5, 4, 3], [2, 1, 0]]
    assert upright[2].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_plain_images_are_as_pillow_converts_them(tmp_path):
    for pixels, suffix in ((BYTES, ".jpg"), (GREY, ".png"), (GREY > 99, ".png"), (BYTES, ".bmp")):
        path = tmp_path / f"x{suffix}"
        Image.fromarray(pixels).save(path)
        with Image.open(path) as image:
            want = image.convert("RGB")
        assert read_image(path).tobytes() == want.tobytes()
        assert read_with_facts(path)[1].steps == ()


def test_every_16_bit_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    got = rasters._scaled(values, (0, 65535), False)
    assert np.array_equal(got, np.floor(values / 65535 * 255 + 0.5))
    inverted = rasters._scaled(values, (0, 65535), True)
    assert np.array_equal(inverted, 255 - got)
    signed = rasters._scaled(values.view(np.int16), (-1000, 1000), False)
    want = np.clip((values.view(np.int16) + 1000.0) / 2000 * 255, 0, 255)
    assert np.array_equal(signed, np.floor(want + 0.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_percentiles_are_those_of_numpy(dtype):
    values = (np.random.default_rng(0).normal(100, 15, (31, 17, 3))).astype(dtype)
    assert rasters.percentiles(values) == pytest.approx(np.percentile(values, (1, 99)))
    constant = np.full((4, 4, 1), 7, dtype)
    assert rasters.percentiles(constant) == (7, 8)


def test_percentile_of_floats_leaves_out_what_is_not_finite(tmp_path):
    values = np.linspace(-5, 5, 400, dtype=np.float32).reshape(20, 20)
    values[0, :3] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "x.tif", values)
    text = refusal(tmp_path / "x.tif")
    assert text.startswith("is a 32-bit float grey image with values from -4.9")
    assert text.endswith(
        'and some that are not finite; set INPUT.WINDOW "[-4.92481, 5]", the values that become '
        "black and white, or percentile."
    )
    image, facts = read_with_facts(tmp_path / "x.tif", ReadSettings(window="percentile"))
    got = np.asarray(image)[..., 0]
    low, high = np.percentile(values[np.isfinite(values)], (1, 99))
    want = np.clip((np.nan_to_num(values, posinf=-9, neginf=-9, nan=-9) - low) / (high - low), 0, 1)
    assert np.abs(got - want * 255).max() <= 0.51
    assert got[0, :3].tolist() == [0, 0, 0]
    assert facts.steps == (
        "values that are not finite made black",
        "1st to 99th percentile of each image scaled to 8 bits",
    )


def test_floats_outside_0_to_1_need_a_window(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.array([[0, 0.5], [2, 9]], np.float32))
    assert refusal(tmp_path / "x.tif") == (
        "is a 32-bit float grey image with values from 0 to 9, outside 0 to 1; set INPUT.WINDOW "
        '"[0, 9]", the values that become black and white, or percentile.'
    )


def test_hidden_colours_do_not_reach_the_model(tmp_path):
    """Pixels that are transparent are the background, whatever their colour, in every mode."""
    rgba = np.dstack([BYTES, np.zeros_like(GREY)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba).save(tmp_path / "a.webp", lossless=True, exact=True)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")
    Image.fromarray(GREY).convert("P").save(tmp_path / "p.png", transparency=bytes(256))
    deep = rgba.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "d.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    settings = ReadSettings(background=(9, 8, 7))
    for path in tmp_path.iterdir():
        pixels = np.asarray(read_image(path, settings)).reshape(-1, 3)
        assert np.unique(pixels, axis=0).tolist() == [[9, 8, 7]], path.name
        chosen = ReadSettings(background=(9, 8, 7), bands=(1,))
        assert np.unique(np.asarray(read_image(path, chosen)).reshape(-1, 3), axis=0).tolist() == [
            [9, 8, 7]
        ]


def test_bands_are_chosen_and_named(tmp_path):
    path = tmp_path / "x.tif"
    many = np.repeat(WORDS[..., :1], 13, axis=2)
    tifffile.imwrite(path, many, photometric="minisblack", planarconfig="contig")
    assert refusal(path) == (
        "has 13 bands; name those to use as red, green and blue, or one for grey: set INPUT.BANDS "
        '"[4, 3, 2]" (counted from 1).'
    )
    assert refusal(path, ReadSettings(bands=(4, 3, 14))) == (
        "has 13 bands, but INPUT.BANDS is [4, 3, 14]; choose from 1 to 13."
    )
    facts = read_with_facts(path, ReadSettings(bands=(3, 2, 1)))[1]
    assert facts.kind == "16-bit 13-band"
    assert facts.steps[0] == "bands 3, 2, 1 used of 13"
    assert facts.bands == 13
    for count, example in ((2, "[1]"), (4, "[3, 2, 1]"), (5, "[4, 3, 2]")):
        tifffile.imwrite(path, many[..., :count], photometric="minisblack", planarconfig="contig")
        assert f"has {count} bands; name those to use" in (text := refusal(path))
        assert f'"{example}"' in text
    Image.fromarray(BYTES).save(tmp_path / "x.png")
    swapped = read_image(tmp_path / "x.png", ReadSettings(bands=(3, 2, 1)))
    assert np.array_equal(np.asarray(swapped), BYTES[..., ::-1])
    assert "has 3 bands" in refusal(tmp_path / "x.png", ReadSettings(bands=(4, 3, 2)))


def test_frames_are_counted_and_chosen(tmp_path):
    first, second = Image.fromarray(BYTES), Image.fromarray(BYTES[::-1].copy())
    first.save(tmp_path / "x.png", save_all=True, append_images=[second])
    facts = read_with_facts(tmp_path / "x.png")[1]
    assert (facts.frames, facts.steps) == (2, ("first of several frames used",))
    assert refusal(tmp_path / "x.png", ReadSettings(frame=3)) == (
        "has 2 frames, but INPUT.FRAME is 3; set it to 1 to 2."
    )
    Image.fromarray(BYTES).save(tmp_path / "x.jpg")
    assert "has 1 frame, but INPUT.FRAME is 2" in refusal(tmp_path / "x.jpg", ReadSettings(frame=2))


def test_overviews_of_a_geotiff_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        tiff.write(WORDS, photometric="rgb")
        tiff.write(WORDS[::2, ::2], photometric="rgb", subfiletype=1)
    image, facts = read_with_facts(tmp_path / "x.tif")
    assert (facts.frames, image.size) == (1, (48, 36))


def test_images_that_are_too_large(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "x.png")
    Image.new("RGB", (200, 100), (200, 10, 90)).save(tmp_path / "x.jpg")
    small = ReadSettings(max_pixels=2000)
    assert refusal(tmp_path / "x.png", small) == (
        "has 200 x 100 = 20,000 pixels, more than INPUT.MAX_PIXELS 2,000; scale it down, or raise "
        "INPUT.MAX_PIXELS."
    )
    image, facts = read_with_facts(tmp_path / "x.jpg", small)
    assert image.size == (50, 25)
    assert facts.steps == ("decoded at 1/4 of the size, for INPUT.MAX_PIXELS",)
    assert "25 x 13" in refusal(tmp_path / "x.jpg", ReadSettings(max_pixels=100))
    assert read_image(tmp_path / "x.png", ReadSettings(max_pixels=20_000)).size == (200, 100)


def test_our_limit_holds_not_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (200, 100)).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "x.png")
        assert image.crop((0, 0, 200, 90)).size == (200, 90)
        with ThreadPoolExecutor(4) as pool:
            paths = [tmp_path / "x.png"] * 8
            assert {i.size for i in pool.map(read_image, paths)} == {(200, 100)}


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(
    "name", ["jpg", "png", "gif", "bmp", "webp", "jp2", "tga", "ppm", "tif", "lzw.tif", "16.tif"]
)
def test_truncated_files_are_refused(name, share, tmp_path):
    path = tmp_path / f"x.{name}"
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    if name == "16.tif":
        tifffile.imwrite(path, noise.astype(np.uint16), photometric="rgb", compression="zlib")
    else:
        how = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        Image.fromarray(noise).save(path, **how)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    text = refusal(path)
    assert "truncated" in text
    assert text.endswith(("replace it.", "get the file again."))


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_tiff_that_lists_too_few_parts_is_refused(tile, tmp_path):
    """Three planes instead of one need three times as many; the rest would be random values."""
    path = tmp_path / "x.tif"
    how = {"tile": tile} if tile else {"rowsperstrip": 9}
    tifffile.imwrite(path, WORDS, photometric="rgb", compression="zlib", **how)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at, parts = tiff.pages[0].tags["PlanarConfiguration"].valueoffset, tiff.pages[0].dataoffsets
    content[at : at + 2] = struct.pack("<H", 2)
    path.write_bytes(content)
    assert refusal(path) == (
        f"is damaged: it lists {len(parts)} of the {3 * len(parts)} parts of its image; get the "
        "file again."
    )


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_the_size_is_checked_before_frames_are_decoded(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"x.{suffix}"
    frames = [Image.new("RGB", (48, 36), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    plugin = type(Image.open(path))
    monkeypatch.setattr(plugin, "seek", lambda *_: pytest.fail("a frame is decoded"))
    text = refusal(path, ReadSettings(frame=2, max_pixels=1000))
    assert text.startswith("has 48 x 36 = 1,728 pixels, more than INPUT.MAX_PIXELS")


def test_what_is_no_image(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found, but long enough for a header</html>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "vector.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.jpg").mkdir()
    assert refusal(tmp_path / "page.jpg").startswith("is not an image, or not in a format that")
    assert refusal(tmp_path / "vector.png").startswith("is not an image")
    assert refusal(tmp_path / "empty.png") == "is empty (0 bytes); get the file again."
    assert refusal(tmp_path / "folder.jpg") == "is a folder, not an image."
    assert refusal(tmp_path / "absent.jpg") == "cannot be opened: No such file or directory."


def test_compression_without_a_decoder_names_the_package(tmp_path, monkeypatch):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, WORDS, photometric="rgb", compression="zlib")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["Compression"].valueoffset
    content[at : at + 2] = struct.pack("<H", 50000)  # Zstandard
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith("needs the decoder of ZSTD in imagecodecs; install it with `pip install")


def test_dicom_refusals(tmp_path, monkeypatch):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "x.dcm"
    KINDS["DICOM 12-bit"].write(path)
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7"])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    data.save_as(tmp_path / "packed.dcm")
    text = refusal(tmp_path / "packed.dcm")
    assert text.startswith("is compressed with JPEG-LS Lossless Image Compression, for which no")
    assert "`pip install pylibjpeg" in text
    del data.PixelData
    data.save_as(tmp_path / "report.dcm")
    assert "holds no image" in refusal(tmp_path / "report.dcm")
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated" in refusal(path)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    assert refusal(path) == "is a DICOM file; `pip install pydicom` to read it."


def facts_of(kind, low, high, span, most=None):
    most = most or (None if low is None else (low, high))
    return ImageFacts(kind, 9, 9, (), low, high, most, span, 1, 1, 1)


@pytest.mark.parametrize(
    ("low", "high", "span", "window", "whole"),
    [
        (0, 4000, (0, 65535), "[0, 4095]", "[0, 65535]"),
        (0, 200, (0, 65535), "[0, 255]", "[0, 65535]"),
        (3, 32000, (0, 65535), "[0, 32767]", "[0, 65535]"),
        (60000, 65000, (0, 65535), "[60000, 65000]", "[0, 65535]"),
        (-1024, 3071, (-32768, 32767), "[-1024, 3071]", "[-32768, 32767]"),
        (0, 1, (0, 65535), "[0, 1]", "[0, 65535]"),
        (0.01, 0.25, (0, 1), "[0.01, 0.25]", "[0, 1]"),
    ],
)
def test_data_that_use_little_of_their_range_are_refused_together(low, high, span, window, whole):
    middle = (low + high) / 2
    facts = [
        facts_of("16-bit grey", low, middle, span),
        facts_of("16-bit grey", middle, high, span),
        facts_of("8-bit RGB", None, None, None),
    ]
    text = unused_range(facts, DEFAULTS)
    assert text.startswith("The 16-bit grey images use only the values ")
    assert f'set INPUT.WINDOW "{window}" or percentile' in text
    assert text.endswith(f'INPUT.WINDOW "{whole}" keeps the full range.')
    assert unused_range(facts, ReadSettings(window=(0, 5))) == ""
    whole_range = facts_of("16-bit grey", span[0], span[1], span)
    assert unused_range([*facts, *3 * [whole_range]], DEFAULTS) == ""


@pytest.mark.parametrize(
    ("kind", "most", "window", "said"),
    [
        ("16-bit grey", (10, 60000), (0, 4095), True),
        ("16-bit grey", (10, 16000), (0, 4095), False),  # within three widths
        ("16-bit grey", (10, 60000), None, False),
        ("16-bit grey", (10, 60000), "percentile", False),
        ("16-bit DICOM", (-1000, 1500), (0, 80), False),  # a window of the brain
    ],
)
def test_a_window_of_other_data_is_said(kind, most, window, said):
    """The facts of 8-bit images beside them, and of one that fits, do not count."""
    facts = [facts_of(kind, *most, None)] * 3 + [facts_of(kind, 5, 4000, None)]
    text = beyond_window(
        [*facts, facts_of("8-bit RGB", None, None, None)], ReadSettings(window=window)
    )
    expected = (
        "In 3 of the 4 16-bit grey images, 98 % of the values are within 10 to 60000, and "
        'INPUT.WINDOW "[0, 4095]" makes all above 4095 white: set one that fits, or percentile.'
    )
    assert text == (expected if said else "")


def test_a_few_images_of_the_whole_range_do_not_make_12_bits_16():
    """One image of another scanner, or as many as there are of the first."""
    span = (0, 65535)
    narrow = facts_of("16-bit grey", 0, 4000, span)
    whole_range = facts_of("16-bit grey", *span, span)
    for count, share in ((1, "39 of the 40"), (39, "39 of the 78")):
        text = unused_range([*39 * [narrow], *count * [whole_range]], DEFAULTS)
        assert text.startswith(f"In {share} 16-bit grey images, 98 % of the values are within 0 to")
        assert 'set INPUT.WINDOW "[0, 4095]" or percentile' in text
    assert unused_range([*39 * [narrow], *40 * [whole_range]], DEFAULTS) == ""
    bright = facts_of("16-bit grey", 50000, 54000, span)  # another window is no remedy
    assert unused_range([narrow, bright, whole_range], DEFAULTS) == ""


def test_a_few_bright_pixels_do_not_make_12_bits_16(tmp_path):
    values = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    values[0, 1:9] = 65535
    Image.fromarray(values).save(tmp_path / "x.png")
    facts = read_with_facts(tmp_path / "x.png")[1]
    assert (facts.low, facts.high, facts.span) == (0, 65535, (0, 65535))
    assert facts.most == tuple(np.percentile(values, (1, 99)))
    text = unused_range([facts], DEFAULTS)
    assert text.startswith("In each of the 16-bit grey images, 98 % of the values are within 4")
    assert 'set INPUT.WINDOW "[0, 4095]" or percentile' in text
    wide = facts_of("16-bit grey", 0, 65535, (0, 65535), (0, 20000))
    assert unused_range([facts, wide, wide], DEFAULTS) == ""


@pytest.mark.parametrize(
    ("dtype", "nodata", "text"),
    [
        (np.uint16, 65535, "65535"),
        (np.int16, -9999, "-9999 "),
        (np.float32, -9999, "-9.999e3"),
        (np.float32, np.float32(-3.4028235e38), "-3.40282346638529e+38"),
    ],
)
def test_pixels_that_gdal_declares_no_data_are_black_and_do_not_count(
    dtype, nodata, text, tmp_path
):
    values = np.linspace(1000, 4000, 64 * 64).astype(dtype).reshape(64, 64)
    values[:8] = nodata
    tags = [(42113, "s", 0, text, True)]
    tifffile.imwrite(tmp_path / "x.tif", values, extratags=tags)
    inside = values[8:]
    low, high = np.percentile(inside, (1, 99))
    image, facts = read_with_facts(tmp_path / "x.tif", ReadSettings(window="percentile"))
    got = np.asarray(image)[..., 0]
    assert (got[:8] == 0).all()
    scaled = np.clip((inside.astype(np.float64) - low) / (high - low) * 255, 0, 255)
    assert np.abs(got[8:] - scaled).max() <= 0.51
    assert (facts.low, facts.high) == (inside.min(), inside.max())
    assert "pixels declared to be without data made black" in facts.steps
    if dtype == np.float32:
        assert 'set INPUT.WINDOW "[1375.09, 4000]"' in refusal(tmp_path / "x.tif")


def test_no_data_in_one_band_of_three_is_a_value(tmp_path):
    values = np.full((4, 4, 3), 40000, np.uint16)
    values[0], values[1, :, 0] = 65535, 65535
    tags = [(42113, "s", 0, "65535", True)]
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", extratags=tags)
    got = np.asarray(read_image(tmp_path / "x.tif"))
    assert (got[0] == 0).all()
    assert (got[1] == (255, 156, 156)).all()
    tifffile.imwrite(tmp_path / "x.tif", values, extratags=[(42113, "s", 0, "none", True)])
    assert (np.asarray(read_image(tmp_path / "x.tif", ReadSettings(bands=(1,))))[0] == 255).all()


def dicom(tmp_path, values, **tags):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "x.dcm"
    KINDS["DICOM 12-bit"].write(path)
    data = pydicom.dcmread(path)
    for name in ("WindowCenter", "WindowWidth"):
        data.pop(name, None)
    data.Rows, data.Columns = values.shape
    data.BitsStored, data.HighBit, data.PixelData = 16, 15, values.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


def test_padding_of_dicom_is_black_and_does_not_count(tmp_path):
    values = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    values[:4], values[4:8] = 65535, 65534
    path = dicom(tmp_path, values)
    data = pytest.importorskip("pydicom").dcmread(path)
    data.add_new("PixelPaddingValue", "US", 65535)
    data.add_new("PixelPaddingRangeLimit", "US", 65534)
    data.save_as(path)
    image, facts = read_with_facts(path, ReadSettings(window=(0, 4095)))
    assert (np.asarray(image)[:8] == 0).all()
    assert np.asarray(image)[8:].max() == 255
    assert (facts.low, facts.high) == (values[8:].min(), 4095)
    assert 'set INPUT.WINDOW "[0, 4095]"' in unused_range([read_with_facts(path)[1]], DEFAULTS)


@pytest.mark.parametrize(("width", "used"), [(0, False), (0.5, False), (-5, False), (400, True)])
def test_a_dicom_window_that_the_standard_forbids_is_not_used(width, used, tmp_path):
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    path = dicom(tmp_path, values, WindowCenter=100, WindowWidth=width)
    image, facts = read_with_facts(path)
    assert (np.asarray(image).mean() > 250) == used  # as a threshold all would be white
    said = "window of the file not used: its width is below 1"
    assert (said in facts.steps) != used


def test_files_carry_their_settings(tmp_path):
    Image.fromarray(WORDS[..., 0]).save(tmp_path / "x.png")
    file = ImageFile(str(tmp_path / "x.png"), ReadSettings(window=(0, 100)))
    assert type(str(file)) is str
    assert pickle.loads(pickle.dumps(file)).settings.window == (0, 100)
    white = np.asarray(read_image(file))
    assert (white == 255).mean() > 0.9
    assert (np.asarray(read_image(str(file))) == 255).mean() < 0.1
    assert (np.asarray(read_image(file, DEFAULTS)) == 255).mean() < 0.1
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_image, (file,)).tobytes() == white.tobytes()


def test_settings_from_a_config():
    assert read_settings(SimpleNamespace()) == DEFAULTS
    assert read_settings(None) == DEFAULTS
    node = SimpleNamespace(
        WINDOW=[-160, 240], BACKGROUND=[255, 255, 255], FRAME=2, BANDS=[3, 2, 1], MAX_PIXELS=9
    )
    assert read_settings(node) == ReadSettings((-160, 240), (255, 255, 255), 2, (3, 2, 1), 9)
    assert changed_settings(SimpleNamespace(FRAME=1, WINDOW="Percentile")) == {
        "WINDOW": "percentile"
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("WINDOW", v) for v in ("full", [1], [4, 4], [5, 1], [0, "x"], [0, float("inf")], 7)),
        *(("BACKGROUND", v) for v in ([0, 0], [0, 0, 256], [-1, 0, 0], "black", [0.5, 0, 0])),
        *(("FRAME", v) for v in (0, -1, 1.5, "first", True)),
        *(("BANDS", v) for v in ([0, 1, 2], [1, 2], [1, 2, 3, 4], "rgb", [1.5])),
        *(("MAX_PIXELS", v) for v in (0, "many", None)),
    ],
)
def test_settings_that_cannot_be(key, value):
    with pytest.raises(UserError, match=rf"^INPUT\.{key} is .*; it must be .*\.$"):
        read_settings(SimpleNamespace(**{key: value}))


def test_extensions():
    assert {".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".dcm", ".ima"} <= set(EXTENSIONS)
    assert {".pdf", ".eps", ".svg", ".psd", ".npy"}.isdisjoint(EXTENSIONS)
    assert all(name == name.lower() and name[0] == "." for name in EXTENSIONS)


def test_the_key_of_copies_has_the_settings():
    keys = {reader.reading_key(s) for s in (DEFAULTS, ReadSettings(frame=2), ReadSettings(frame=3))}
    assert len(keys) == 3
    assert reader.reading_key(ReadSettings()) == f"reader{reader.VERSION}"
