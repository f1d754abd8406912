"""Kinds of files that one decoder gets wrong: the stored values, or a refusal that says why."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from dplq.errors import UserError
from dplq.images import tiff
from dplq.images.reader import convert_image, read_image, read_opened, read_with_facts
from dplq.images.settings import DEFAULTS, ReadSettings

RAMP = np.arange(64 * 48, dtype=np.int32).reshape(48, 64)


def refusal(path, settings=DEFAULTS):
    with pytest.raises(UserError) as caught:
        read_image(path, settings)
    return str(caught.value)


class Page:
    """What is known of a page before it is decoded."""

    def __init__(self, byteorder="<", sampleformat=1, samples=1, planar=1, extra=()):
        self.parent = type("File", (), {"byteorder": byteorder})
        self.sampleformat, self.samplesperpixel = sampleformat, samples
        self.planarconfig, self.extrasamples = planar, extra


@pytest.mark.parametrize(
    ("page", "exact"),
    [
        (Page(), True),
        (Page(">"), True),
        (Page("<", 2), True),
        (Page(">", 2), False),
        (Page(">", 3), False),
        (Page(samples=3), True),
        (Page(samples=3, planar=2), False),
        (Page(samples=4, extra=(2,)), True),
        (Page(samples=4, extra=(1,)), False),
        (Page(samples=2, planar=2, extra=(2,)), False),
    ],
)
def test_pillow_decodes_only_what_it_decodes_right(page, exact):
    assert tiff._pillow_is_exact(page) == exact


def test_a_compressed_tiff_that_pillow_gets_wrong_names_the_package(tmp_path, monkeypatch):
    """tifffile without imagecodecs raises; Pillow would swap these bytes."""
    path = tmp_path / "dem.tif"
    tifffile.imwrite(path, RAMP.astype("i2"), byteorder=">", compression="zlib")

    def no_decoder(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", no_decoder)
    assert "pip install imagecodecs" in refusal(path, ReadSettings(window=(0, 3071)))


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("bands", [3, 4])
def test_compressed_colours_of_16_bits_without_imagecodecs(bands, byteorder, tmp_path, monkeypatch):
    values = np.stack([RAMP * 21 + 7 * band for band in range(bands)], 2).astype(np.uint16)
    values[..., 3:] = 65535
    path = tmp_path / "a.tif"
    extra = {"extrasamples": ["unassalpha"]} if bands == 4 else {}
    given = {"photometric": "rgb", "byteorder": byteorder, **extra}
    tifffile.imwrite(path, values, compression="zlib", **given)

    def no_decoder(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", no_decoder)
    image = np.asarray(read_image(path))
    assert (image == np.floor(values[..., :3] / 257 + 0.5)).all()


def test_nan_declared_as_no_data_is_black(tmp_path):
    values = (RAMP / RAMP.max()).astype(np.float32)
    values[:5] = np.nan
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, extratags=[(42113, 2, 4, "nan", True)])
    image, facts = read_with_facts(path)
    expected = np.floor(np.nan_to_num(values) * 255.0 + 0.5)
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1
    assert (np.asarray(image)[:5] == 0).all()
    assert "pixels declared to be without data made black" in facts.steps


def test_pages_under_one_entry_are_counted(tmp_path):
    stack = np.stack([RAMP % 251, RAMP % 241, RAMP % 239]).astype(np.uint8)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, truncate=True, photometric="minisblack")
    image, facts = read_with_facts(path)
    assert facts.frames == 3
    assert "first of several pages used" in facts.steps
    assert (np.asarray(image)[..., 0] == stack[0]).all()
    assert "3 pages under one entry" in refusal(path, ReadSettings(frame=2))


def test_premultiplied_alpha_with_a_window(tmp_path):
    """A colour of 3000 at alpha 0.5 is stored as 1500; it is 170 of 255 in 1000 to 4000."""
    values = np.zeros((8, 8, 4), np.uint16)
    values[..., :3], values[..., 3] = 1500, 32768
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["assocalpha"])
    image = np.asarray(read_image(path, ReadSettings(window=(1000, 4000))))
    assert np.abs(image.astype(int) - 85).max() <= 1


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_float_alpha_of_another_scale_is_refused(kind, tmp_path):
    values = np.full((8, 8, 4), 0.5, np.float32)
    values[..., 3] = 128
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=[kind])
    assert "alpha values other than 0 to 1" in refusal(path)


@pytest.mark.parametrize("edge", [(1001, 1), (1, 40000)])
def test_a_thread_of_pixels_is_refused(edge, tmp_path):
    path = tmp_path / "thin.png"
    Image.new("RGB", edge).save(path)
    assert "one edge more than 1,000 times the other" in refusal(path)
    Image.new("RGB", (1000, 1)).save(path)
    assert read_image(path).size == (1000, 1)


@pytest.mark.parametrize(("start", "bands"), [("P2", 1), ("P3", 3)])
def test_values_in_digits_above_8_bits(start, bands, tmp_path):
    values = (np.arange(60 * 40 * bands) % 4096).reshape(40, 60, bands)
    path = tmp_path / "a.pgm"
    lines = "\n".join(" ".join(map(str, row.ravel())) for row in values)
    path.write_text(f"{start}\n60 40\n4095\n# a remark 17\n{lines}\n")
    image = np.asarray(read_image(path))
    assert (image == np.floor(values / 4095 * 255 + 0.5)).all()
    path.write_text(f"{start}\n60 40\n4095\n5 4 3\n")
    assert "is truncated" in refusal(path)
    for value in (-1, 4096):
        path.write_text(f"{start}\n60 40\n4095\n{value} {lines}\n")
        assert "values outside 0 to 4095" in refusal(path)


def test_jpeg2000_with_much_before_its_image(tmp_path):
    colours = np.stack([RAMP % 251, RAMP % 241, RAMP % 239], 2).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG2000")
    whole = buffer.getvalue()
    at = whole.index(b"jp2c") - 4
    box = struct.pack(">I4s", 70_008, b"xml ") + b" " * 70_000
    path = tmp_path / "a.jp2"
    path.write_bytes(whole[:at] + box + whole[at:])
    assert (np.asarray(read_image(path)) == colours).all()
    for size in (struct.pack(">I4sQ", 1, b"xml ", 0), struct.pack(">I4sQ", 5, b"xml ", 0)):
        path.write_bytes(whole[:at] + size + whole[at:])
        assert "has no image data" in refusal(path) or "cannot be decoded" in refusal(path)


def test_bands_of_a_cmyk_jpeg_are_its_colours(tmp_path):
    colours = Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8))
    path = tmp_path / "a.jpg"
    colours.convert("CMYK").save(path, quality=95)
    plain = np.asarray(read_image(path))
    image, facts = read_with_facts(path, ReadSettings(bands=(3, 2, 1)))
    assert (np.asarray(image) == plain[..., ::-1]).all()
    assert "CMYK to RGB" in facts.steps


@pytest.mark.parametrize(
    ("dtype", "photometric"),
    [
        ("int16", "minisblack"),
        ("uint16", "minisblack"),
        ("uint16", "miniswhite"),
        ("uint32", "minisblack"),
        ("int32", "minisblack"),
    ],
)
def test_an_opened_tiff_is_as_its_file(dtype, photometric, tmp_path):
    info = np.iinfo(dtype)
    values = np.linspace(info.min, info.max, RAMP.size).reshape(RAMP.shape).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric=photometric)
    with Image.open(path) as opened:
        image = np.asarray(convert_image(opened))
    assert (image == np.asarray(read_image(path))).all()
    assert np.ptp(image) == 255


def test_an_opened_png_keeps_its_transparent_value(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray((RAMP * 21).astype(np.uint16)).save(path, transparency=21 * 100)
    with Image.open(path) as opened:
        image = np.asarray(convert_image(opened, ReadSettings(background=(255, 0, 0))))
    assert (image == np.asarray(read_image(path, ReadSettings(background=(255, 0, 0))))).all()
    assert (image[1, 36] == (255, 0, 0)).all()


def test_what_only_looks_like_tga(tmp_path):
    head = bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 16, 0, 24, 0])
    path = tmp_path / "x.png"
    path.write_bytes(head + bytes(range(256)) * 3)
    assert "is not an image" in refusal(path)
    named = tmp_path / "x.TGA"
    named.write_bytes(path.read_bytes())
    assert read_image(named).size == (16, 16)
    copied = read_opened(BytesIO(named.read_bytes()), str(named), DEFAULTS)  # as the cache does
    assert copied.size == (16, 16)


def dicom(path, pixels, *, big=False, **values):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    data = Dataset()
    data.file_meta = FileMetaDataset()
    uid = pydicom.uid.ExplicitVRBigEndian if big else pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.TransferSyntaxUID = uid
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.PixelRepresentation = bits, 0
    if pixels.dtype.kind == "f":
        name = "FloatPixelData" if bits == 32 else "DoubleFloatPixelData"
        setattr(data, name, pixels.tobytes())
    else:
        data.BitsStored, data.HighBit = 12, 11
        data.PixelData = pixels.astype(">u2" if big else "<u2").tobytes()
        data["PixelData"].VR = "OW"
    for name, value in values.items():
        setattr(data, name, value)
    if "VOILUTSequence" in values:
        values["VOILUTSequence"][0]["LUTData"].VR = "OW"
    kind = {"implicit_vr": False, "little_endian": not big}
    pydicom.dcmwrite(path, data, enforce_file_format=True, **kind)
    return path


def test_floats_of_dicom_with_a_slope_need_a_window(tmp_path):
    pixels = (RAMP % 941).astype(np.float32)
    path = dicom(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=0)
    assert "set INPUT.WINDOW" in refusal(path)
    image = np.asarray(read_image(path, ReadSettings(window=(0, 1880))))[..., 0]
    assert (image == np.floor(pixels * 2 / 1880 * 255 + 0.5)).all()


def test_dicom_of_doubles(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP.astype(np.float64) / RAMP.max())
    image = np.asarray(read_image(path))[..., 0]
    assert (image == np.floor(RAMP / RAMP.max() * 255 + 0.5)).all()


def test_an_intercept_without_a_slope_counts(tmp_path):
    pixels = (RAMP % 4096).astype(np.uint16)
    path = dicom(tmp_path / "a.dcm", pixels, RescaleIntercept=-1024)
    image = np.asarray(read_image(path, ReadSettings(window=(-1024, 3071))))[..., 0]
    assert (image == np.floor(pixels / 4095 * 255 + 0.5)).all()


def test_bits_that_end_elsewhere_are_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", (RAMP << 4).astype(np.uint16), HighBit=15)
    assert "12 bits up to bit 15, not 11" in refusal(path)


@pytest.mark.parametrize("big", [False, True])
def test_a_lut_has_the_byte_order_of_its_file(big, tmp_path):
    from pydicom.dataset import Dataset

    table = (np.arange(4096) ** 2 // 256 % 65536).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = (
        [4096, 0, 16],
        table.astype(">u2" if big else "<u2").tobytes(),
    )
    pixels = (RAMP % 4096).astype(np.uint16)
    path = dicom(tmp_path / "a.dcm", pixels, big=big, VOILUTSequence=[item])
    image = np.asarray(read_image(path))[..., 0]
    assert (image == np.floor(table[pixels] / 65535 * 255 + 0.5)).all()
