"""Published CLIP checkpoints: which activation they were trained with, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from dplq.clip.installed import open_clip

SHA256_DIGITS = 64
GELU, QUICK_GELU = "gelu", "quickgelu"  # as the argument `act` has them


@dataclass(frozen=True)
class KnownFile:
    """Published files that were trained with one activation.

    Attributes:
        names: patterns of the names they are published under: of the file, of its folder, or of
            the repository on the Hugging Face hub.
        act: "gelu" or "quickgelu".
        reason: how that is known, for messages.
    """

    names: tuple[str, ...]
    act: str
    reason: str


# Only what the published code shows. QuiltNet, and the files of GeoRSCLIP that its code does not
# load (ViT-L-14), are not known.
KNOWN_FILES = (
    KnownFile(
        ("RemoteCLIP-ViT-*.pt", "RemoteCLIP-RN50.pt", "RemoteCLIP_ViT-*.pt"),
        QUICK_GELU,
        "trained from OpenAI's weights; its retrieval.py runs QuickGELU, only the example in its "
        "README runs GELU",
    ),
    KnownFile(
        ("RS5M_ViT-B-32.pt",),
        QUICK_GELU,
        "GeoRSCLIP's inference.py builds it on OpenAI's weights",
    ),
    KnownFile(
        ("RS5M_ViT-H-14.pt",),
        GELU,
        "GeoRSCLIP's inference.py builds it on laion2b_s32b_b79k",
    ),
    KnownFile(
        ("SkyCLIP_ViT_L14_*", "CLIP_ViT_L14_LAION_RS*"),
        QUICK_GELU,
        "SkyCLIP's notebooks force QuickGELU for ViT-L-14, trained from OpenAI's weights",
    ),
    KnownFile(
        ("SkyCLIP_ViT_B32_*",),
        GELU,
        "trained from laion2b_e16, and SkyCLIP's notebooks do not force QuickGELU for ViT-B-32",
    ),
    KnownFile(
        ("clip-rsicd", "clip-rsicd-v2"),
        QUICK_GELU,
        "fine-tuned from openai/clip-vit-base-patch32",
    ),
    KnownFile(
        ("unimed-clip-vit-*.pt", "unimed_clip_vit_*.pt"),
        QUICK_GELU,
        "UniMed-CLIP's README loads it with force_quick_gelu",
    ),
    KnownFile(
        ("plip",),
        QUICK_GELU,
        "PLIP was trained from OpenAI's ViT-B/32",
    ),
    KnownFile(
        ("PubMedCLIP",),
        QUICK_GELU,
        "PubMedCLIP was trained from OpenAI's models",
    ),
)


def find_known(file: Path, digest: str = "") -> KnownFile | None:
    """Return what is known of a file, by its digest, its name, its folder's or its repository's.

    Args:
        file: a checkpoint.
        digest: its sha256 in hex; "" where it was not computed.
    """
    published = _open_clip_files()
    for key in (digest, file.name):
        if key in published:
            return published[key]
    file = file.absolute()
    # The hub's cache has a file in models--ORG--NAME/snapshots/REVISION.
    hub = [folder.name for folder in file.parents if folder.name.startswith("models--")]
    places = [file.name, file.parent.name, *(name.rpartition("--")[2] for name in hub)]
    for known in KNOWN_FILES:
        if any(fnmatch(place, pattern) for place in places for pattern in known.names):
            return known
    return None


@cache
def _open_clip_files() -> dict[str, KnownFile]:
    """Return the files that open_clip's pretrained tags download, by digest or by name.

    OpenAI's addresses hold the sha256 of the file, whose name (ViT-B-32.pt) others use too.
    """
    package = open_clip("pretrained")
    found: dict[str, KnownFile] = {}
    for model, tag in package.list_pretrained():
        published = package.get_pretrained_cfg(model, tag)
        address: str = published.get("url", "")
        if not address:
            continue
        folder, name = address.split("/")[-2:]
        act = QUICK_GELU if published.get("quick_gelu") else GELU
        known = KnownFile((name,), act, f"open_clip's {model}:{tag}")
        key = folder if len(folder) == SHA256_DIGITS else name
        # A tag of both ViT-B-32 and ViT-B-32-quickgelu is of the latter.
        if key not in found or act == QUICK_GELU:
            found[key] = known
    return found
