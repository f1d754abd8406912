"""File and class names: numbers, masks, unsupported formats, system files.

Pure functions on names, so that a run and `dplq.data check` draw the same conclusions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from dplq.images.reader import EXTENSIONS

# Patterns of what operating systems leave in folders, in lower case.
MAC_NAMES = (
    *("__macosx", ".ds_store", "._*", ".appledouble", ".spotlight-v100", ".trashes"),
    *(".fseventsd", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"),
    *("system volume information", "lost+found", "@eadir", "#recycle"),  # the last two: Synology
)
NO_EXTENSION = "no extension"  # key of `unsupported`
_MASK_WORDS = r"(?:masks?|seg|segm|segmentations?|gt|ground[ _-]?truth)"
_MASK_SUFFIX = re.compile(rf"(?P<image>.+?)[ _.-]+\(?{_MASK_WORDS}\)?(?:[ _.-]*\(?\d+\)?)?", re.I)
_MASK_PREFIX = re.compile(rf"{_MASK_WORDS}[ _.-]+(?P<image>.+)", re.I)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
# Names that scanners and archives give to DICOM files: IM000001, MR.0007, 1.2.840.113619.2.5
_DICOM_NAME = re.compile(r"(?:im|img|image|mr|ct|cr|dx|us|i|z)[-_.]?[0-9]+|[0-9]+(?:\.[0-9]+){4,}")
# What may be data of a class; of these, `unsupported` counts what the reader does not open.
_DATA = """
    .jpg .jpeg .jpe .jfif .png .apng .bmp .dib .tif .tiff .gif .webp .avif .avifs .heic .heif .jxl
    .jxr .hdp .wdp .jp2 .j2k .jpx .j2c .jpc .jpf .mpo .jps .exr .hdr .ppm .pgm .pbm .pnm .pfm .pam
    .tga .pcx .ico .icns .cur .sgi .rgb .xbm .xpm .dds .qoi .psd .psb .xcf .ai .eps .ps .svg .svgz
    .wmf .emf .pdf .djvu
    .raw .cr2 .cr3 .crw .nef .nrw .dng .arw .srf .sr2 .orf .rw2 .raf .pef .3fr
    .dcm .dicom .dic .ima .nii .nii.gz .img .img.gz .mha .mhd .zraw .nrrd .nhdr .mgh .mgz .mnc .ecat
    .ndpi .svs .scn .mrxs .vms .vmu .bif .czi .lif .nd2 .lsm .oib .oif .ims .vsi .zvi .dm3 .dm4 .mrc
    .e2e .fda
    .ecw .sid .hdf .hdf4 .hdf5 .h4 .h5 .he4 .he5 .nc .nc4 .cdf .grb .grib .grib2 .bil .bip .bsq .ntf
    .nitf .dem .fits .fit .fts .cub .vrt .zarr .kea .mbtiles
    .npy .npz .mat .tfrecord .tfrecords .lmdb .mdb .parquet .mp4 .avi .mov .mkv .mpg .mpeg
    .wmv .webm
"""
_DATA_EXTENSIONS = frozenset(_DATA.split())


def is_numeric(names: Sequence[str]) -> bool:
    """Return whether all names are numbers; False if there are none."""
    return bool(names) and all(_NUMBER.fullmatch(name.strip()) for name in names)


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted as numbers if all are numbers ("2" before "10"), else by code point."""
    names = sorted(names)
    return sorted(names, key=float) if None not in map(number_of, names) else names


def number_of(name: str) -> float | None:
    """Return the number that a name is, None if it is a word."""
    return float(name) if _PLAIN_NUMBER.fullmatch(name) else None


def is_system_file(name: str) -> bool:
    """Return whether an operating system left this file or folder; case does not count.

    Args:
        name: of a file or folder, or a POSIX path: then any step of it.
    """
    return any(fnmatchcase(s.lower(), pattern) for s in name.split("/") for pattern in MAC_NAMES)


def mask_of(names: Iterable[str]) -> dict[str, str]:
    """Return the masks among image files: segmentations that lie beside their image.

    A mask has its image's name and one of the words mask, seg, segmentation, gt, ground truth
    before or after it, and perhaps a number: `x_mask.png`, `x-mask.tif`, `x_mask_1.png`,
    `mask_x.png` beside `x.png` or `x.jpg`. Without its image it is no mask. Case does not count.

    Args:
        names: image files, as names in one folder or as POSIX paths; an image is sought in the
            folder of its mask.

    Returns:
        The image of each mask, in the order of `names`.
    """
    names = list(names)
    by_stem: dict[str, str] = {}
    for name in sorted(names, reverse=True):  # of x.jpg and x.png, the first stays
        by_stem[_stem(name).lower()] = name
    found = {}
    for name in names:
        image = _image_of_mask(_stem(name).lower(), by_stem)
        if image is not None and image != name:
            found[name] = image
    return found


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _image_of_mask(stem: str, by_stem: dict[str, str]) -> str | None:
    folder, slash, name = stem.rpartition("/")
    for pattern in (_MASK_SUFFIX, _MASK_PREFIX):
        match = pattern.fullmatch(name)
        image = by_stem.get(f"{folder}{slash}{match['image']}") if match else None
        if image:
            return image
    return None


def unsupported(names: Iterable[str]) -> dict[str, int]:
    """Count the files that look like images or data but that the reader cannot open.

    Args:
        names: files, as names or POSIX paths. Tables, texts and system files are not counted.

    Returns:
        Count by lower-case extension (`.nii.gz` is one), most frequent first. The key
        `NO_EXTENSION` counts names like those of DICOM files without extension (`IM000001`).
    """
    counts = Counter(filter(None, map(_unsupported_extension, names)))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _unsupported_extension(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    if is_system_file(path) or name.endswith(EXTENSIONS):
        return ""
    if _DICOM_NAME.fullmatch(name):
        return NO_EXTENSION
    parts = name.split(".")
    endings = ["." + ".".join(parts[-n:]) for n in (2, 1) if len(parts) > n]
    return next((ending for ending in endings if ending in _DATA_EXTENSIONS), "")
