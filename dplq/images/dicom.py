"""DICOM files, through pydicom."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from .settings import ReadSettings
from .stored import Range, Raster, Refusal, Stored, check_size, choose_frame, span_of

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY = ("MONOCHROME1", "MONOCHROME2")
ENDINGS = (".dcm", ".dic", ".dicom", ".ima")
DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


def read_dicom(file: BinaryIO, settings: ReadSettings) -> Stored:
    """Return what a DICOM file stores, grey values after its modality LUT.

    Args:
        file: at its start.
        settings: of the reader.

    Raises:
        Refusal: it cannot be used as it is.
    """
    data = _pydicom().dcmread(file)
    if not any(name in data for name in PIXELS):
        raise Refusal("is a DICOM file that holds no image, or ends before it; replace it")
    frames = int(data.get("NumberOfFrames") or 1)
    steps: list[str] = []
    index = choose_frame(frames, settings, steps)
    check_size(int(data.Columns), int(data.Rows), settings)
    photometric = str(data.PhotometricInterpretation)
    _require_usual_bits(data)
    values = _frame(data, index, frames)
    if photometric in GREY:
        raster = _grey(data, values, index, settings, steps)
    else:
        raster = _colour(data, values, photometric, steps)
    return Stored(raster, frames, steps=steps)


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins so, of 132 bytes or more, is DICOM."""
    return head[128:132] == b"DICM"


def patient_id(path: str | os.PathLike[str]) -> str:
    """Return the PatientID of a DICOM file; "" of another file, or where it has none.

    Raises:
        Refusal: pydicom is not installed.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        if not is_dicom(file.read(132)):
            return ""
        file.seek(0)
        pydicom = _pydicom()
        try:
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(data.get("PatientID") or "").strip()
        except Exception:  # pydicom has no one error for broken files; the reader names them
            return ""


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise Refusal("is a DICOM file; `pip install pydicom` to read it") from error
    return pydicom


def _frame(data: Any, index: int, frames: int) -> np.ndarray:
    """Return a frame as stored, (H, W) or (H, W, 3), YBR as RGB.

    Raises:
        Refusal: it is compressed in a way that needs another package.
    """
    syntax = data.file_meta.TransferSyntaxUID
    try:
        return _decoded(data, index, frames)
    except (NotImplementedError, RuntimeError, ImportError) as error:
        if not syntax.is_compressed or _has_decoder(syntax):
            raise
        raise Refusal(
            f"is compressed with {syntax.name}, for which no decoder is installed; `{DECODERS}`"
        ) from error


def _has_decoder(syntax: Any) -> bool:
    """Return whether a decoder of a transfer syntax is known to be installed."""
    try:
        from pydicom.pixels import get_decoder

        return bool(get_decoder(syntax).is_available)
    except (ImportError, NotImplementedError):  # pydicom 2 does not say; no decoder at all
        return False


def _require_usual_bits(data: Any) -> None:
    """Refuse values that do not end at the lowest bit: pydicom does not move them there.

    Raises:
        Refusal: they do not.
    """
    stored, high = data.get("BitsStored"), data.get("HighBit")
    compressed = data.file_meta.TransferSyntaxUID.is_compressed  # whose codec knows its bits
    known = "PixelData" in data and not compressed and None not in (stored, high)
    if known and high != stored - 1:
        raise Refusal(
            f"stores values of {stored} bits up to bit {high}, not {stored - 1}, which DICOM no "
            "longer allows and cannot be read; convert it"
        )


def _decoded(data: Any, index: int, frames: int) -> np.ndarray:
    try:
        from pydicom.pixels import pixel_array
    except ImportError:  # pydicom 2
        every = data.pixel_array
        values = every[index] if frames > 1 else every
        space = str(data.PhotometricInterpretation)
        if "YBR_FULL" in space:
            values = _function("convert_color_space")(values, space, "RGB")
        return np.asarray(values)
    return np.asarray(pixel_array(data, index=index))


def _function(name: str) -> Any:
    """Return a function of pydicom's, which has moved between its versions 2 and 3."""
    try:
        return getattr(import_module("pydicom.pixels"), name)
    except ImportError:
        return getattr(import_module("pydicom.pixel_data_handlers.util"), name)


def _grey(
    data: Any, values: np.ndarray, index: int, settings: ReadSettings, steps: list[str]
) -> Raster:
    bits = int(data.BitsStored) if "PixelData" in data else 8 * values.dtype.itemsize
    kind = f"{bits}-bit DICOM"
    span = span_of(values.dtype, bits)
    absent = _absent(data, values)
    values, span, bits = _modality(data, values, span, bits, index, steps)
    window = None
    if settings.window is None:
        source = _group(data, "FrameVOILUTSequence", index)
        if source.get("VOILUTSequence"):
            values, span, bits = _voi_lut(source, values, _order(data))
            window = span
        elif source.get("WindowWidth") is not None and source.get("WindowCenter") is not None:
            values, window = _windowed(source, values, steps)
    inverted = str(data.PhotometricInterpretation) == "MONOCHROME1"
    shape = str(data.get("PresentationLUTShape") or "")
    if inverted or shape == "INVERSE":
        steps.append("MONOCHROME1 inverted")
        inverted = True
    values = values[..., None]
    return Raster(
        values, kind, span, bits, inverted=inverted, window=window, scaled=True, absent=absent
    )


def _absent(data: Any, values: np.ndarray) -> np.ndarray | None:
    """Return where values as stored are padding, which is no part of the image; None: nowhere."""
    value = data.get("PixelPaddingValue")
    if value is None:
        return None
    limit = data.get("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    absent = (values >= low) & (values <= high)
    return absent if absent.any() else None


def _group(data: Any, name: str, index: int) -> Any:
    """Return where the attributes of a frame are: its functional group, or the data set."""
    per_frame = list(data.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for group in (*per_frame, *(data.get("SharedFunctionalGroupsSequence") or [])):
        if group.get(name):
            return group[name].value[0]
    return data


def _modality(
    data: Any, values: np.ndarray, span: Range | None, bits: int, index: int, steps: list[str]
) -> tuple[np.ndarray, Range | None, int]:
    """Return values, range and bits after the modality LUT: Hounsfield units in CT."""
    source = _group(data, "PixelValueTransformationSequence", index)
    if source.get("ModalityLUTSequence"):
        table, first, bits = _lut(source.ModalityLUTSequence[0], _order(data))
        steps.append("modality LUT applied")
        return _looked_up(table, first, values), (0, 2.0**bits - 1), bits
    given, offset = source.get("RescaleSlope"), source.get("RescaleIntercept")
    slope, intercept = float(1 if given is None else given), float(offset or 0)
    if (slope, intercept) == (1, 0):
        return values, span, bits
    steps.append("rescale slope and intercept applied")
    if span is None:  # floats
        return values * slope + intercept, None, bits
    ends = sorted(end * slope + intercept for end in span)
    whole = slope.is_integer() and intercept.is_integer() and values.dtype.kind in "ui"
    if whole and max(map(abs, ends)) < 2**31:
        small = ends[0] >= -(2**15) and ends[1] < 2**15
        exact = values.astype(np.int32) * int(slope) + int(intercept)
        return exact.astype(np.int16) if small else exact, (ends[0], ends[1]), bits
    return values * slope + intercept, (ends[0], ends[1]), bits


def _order(data: Any) -> str:
    """Return numpy's sign of the byte order of a data set."""
    return "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"


def _lut(item: Any, order: str) -> tuple[np.ndarray, int, int]:
    """Return the entries of a LUT, the value of the first, and their bits."""
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    stored = item.LUTData
    if isinstance(stored, bytes):
        wide = len(stored) >= 2 * (count or 65536)
        stored = np.frombuffer(stored, f"{order}u2" if wide else "u1")
    return np.asarray(stored, np.uint16)[: count or 65536], first, bits


def _looked_up(table: np.ndarray, first: int, values: np.ndarray) -> np.ndarray:
    """Return the entry of each value; those before and after the table get its ends."""
    return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]


def _voi_lut(source: Any, values: np.ndarray, order: str) -> tuple[np.ndarray, Range, int]:
    table, first, bits = _lut(source.VOILUTSequence[0], order)
    return _looked_up(table, first, values), (0, 2.0**bits - 1), bits


def _first(value: Any) -> float:
    """Return a number, the first of several."""
    return float(value[0] if hasattr(value, "__getitem__") and len(value) else value)


def _windowed(source: Any, values: np.ndarray, steps: list[str]) -> tuple[np.ndarray, Range | None]:
    """Return values, and the window of the file: its first where there are several.

    The three functions are those of DICOM PS3.3 C.11.2.1.2.
    """
    centre, width = _first(source.WindowCenter), _first(source.WindowWidth)
    function = str(source.get("VOILUTFunction") or "LINEAR")
    if width <= 0 or (width < 1 and function == "LINEAR"):  # the standard forbids both
        steps.append("window of the file not used: its width is below 1")
        return values, None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width)), (0.0, 1.0)
    if function == "LINEAR_EXACT":
        return values, (centre - width / 2, centre + width / 2)
    if width == 1:  # a threshold
        return (values > centre - 0.5).astype(np.uint8), (0.0, 1.0)
    return values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _colour(data: Any, values: np.ndarray, photometric: str, steps: list[str]) -> Raster:
    bits = int(data.BitsStored)
    kind = f"{bits}-bit DICOM, {'palette' if photometric == 'PALETTE COLOR' else 'RGB'}"
    if photometric == "PALETTE COLOR":
        values, bits = _palette(data, values), 8
        steps.append("palette to RGB")
    elif photometric.startswith("YBR"):
        steps.append("YBR to RGB")
    elif photometric != "RGB":
        raise Refusal(f"is a DICOM image of {photometric}, which cannot be read; convert it")
    return Raster(values, kind, span_of(values.dtype, bits), bits, rgb=True)


def _palette(data: Any, values: np.ndarray) -> np.ndarray:
    """Return the palette's colours, (H, W, 3) bytes."""
    colours = np.asarray(_function("apply_color_lut")(values, data))[..., :3]
    if colours.dtype == np.uint8:
        return colours
    return np.floor(colours / 257 + 0.5).astype(np.uint8)
