"""Where a model's frozen parts and its data come from, and what their licences say."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dplq.io.spec import HUB, Spec
from dplq.models.catalogue import PublishedModel, catalogue

UNKNOWN = "not known"
HUB_PAGE = "https://huggingface.co/"
# What licences ask of those who use the weights, by what stands in their names.
TERMS = {
    "NC": "no commercial use",
    "ND": "no distribution of changed weights",
    "SA": "changed weights under the same licence",
    "non-commercial": "no commercial use",
}


@dataclass(frozen=True)
class Origin:
    """A frozen part or a dataset.

    Attributes:
        role: "CLIP", "domain encoder" or "data".
        name: of it.
        licence: as its source states it, or `UNKNOWN`.
        page: where it is described; "" where that is not known.
        hub: its repository on the Hub; "" where there is none.
        gated: whether terms have to be accepted before a download.
        by_hand: whether its weights have to be fetched before the model is loaded.
    """

    role: str
    name: str
    licence: str = UNKNOWN
    page: str = ""
    hub: str = ""
    gated: bool = False
    by_hand: bool = True

    def terms(self) -> str:
        """Return what the licence asks, as far as its name tells."""
        words = re.split(r"[-\s(]+", self.licence)
        asked = [text for word, text in TERMS.items() if word in words]
        if "non-commercial" in self.licence.lower() and TERMS["NC"] not in asked:
            asked.append(TERMS["NC"])
        if self.gated:
            asked.append("terms to be accepted on its page")
        return "; ".join(dict.fromkeys(asked))


def origins(header: Mapping[str, Any]) -> list[Origin]:
    """Return the frozen parts that a checkpoint's header names."""
    found = [_of_clip(Spec.from_header(header["backbone"]))]
    if header["domain"] is not None:
        whole = Spec.from_header(header["domain"])
        found += [_of_encoder(part) for part in whole.parts or (whole,)]
    return found


def _of_clip(spec: Spec) -> Origin:
    role, name = "CLIP", _shown(spec)
    if known := _common(role, name, spec):
        return known
    import open_clip

    architecture, _, tag = spec.name.partition(":")
    config = open_clip.get_pretrained_cfg(architecture.replace("/", "-"), tag or "openai") or {}
    hub = str(config.get("hf_hub") or "").rstrip("/")
    if not config or spec.weights or not spec.pretrained:
        return Origin(role, name)
    if (tag or "openai") == "openai":
        page = "https://github.com/openai/CLIP"
        return Origin(role, name, "MIT (repository)", page, hub, by_hand=False)
    return Origin(role, name, UNKNOWN, HUB_PAGE + hub if hub else "", hub, by_hand=False)


def _of_encoder(spec: Spec) -> Origin:
    role, name = "domain encoder", _shown(spec)
    if known := _common(role, name, spec):
        return known
    import timm

    config: Any = None
    if spec.pretrained and not spec.weights and timm.is_model(spec.name):
        config = timm.get_pretrained_cfg(spec.name)
    if spec.name == "clip":
        return Origin(role, name, "that of the CLIP above", by_hand=False)
    if config is None:
        return Origin(role, name)
    hub = str(config.hf_hub_id or "")
    licence = f"{config.license} (timm)" if config.license else UNKNOWN
    return Origin(role, name, licence, HUB_PAGE + hub if hub else "", hub, by_hand=False)


def _shown(spec: Spec) -> str:
    file = f", weights {spec.weights}" if spec.weights else ""
    return f"{spec.name}{file}{'' if spec.pretrained else ', random weights'}"


def _common(role: str, name: str, spec: Spec) -> Origin | None:
    """Return what is known of the demo, of published models and of Hub repositories."""
    if spec.name == "demo":
        return Origin(role, "demo, part of dplq", "MIT (repository)", by_hand=False)
    if model := _published(spec):
        return Origin(
            role,
            f"{name} ({model.title})" if model.title != name else name,
            model.licence or UNKNOWN,
            model.page,
            model.hub or "",
            bool(model.gated),
        )
    if spec.name.startswith(HUB):
        hub = spec.name.partition(":")[2].partition("@")[0]
        return Origin(role, name, UNKNOWN, HUB_PAGE + hub, hub, by_hand=False)
    return None


def _published(spec: Spec) -> PublishedModel | None:
    """Return the catalogue's model of that name, repository or weights."""
    models = catalogue()
    if spec.name.lower() in models:
        return models[spec.name.lower()]
    hub = spec.name.partition(":")[2].partition("@")[0] if spec.name.startswith(HUB) else ""
    for model in models.values():
        is_file = bool(spec.sha256 and model.sha256) and spec.sha256.startswith(model.sha256 or "-")
        file = PurePosixPath(model.file or "").name
        # Names that any model's weights have tell nothing.
        is_named = bool(spec.weights) and spec.weights == file and not file.startswith("model.")
        if is_file or is_named or (hub and hub == model.hub):
            return model
    return None


def data_origin(name: str) -> Origin:
    """Return what a dataset's declaration says of it; only the name, where there is none."""
    from dplq.host.dassl import ensure_dassl

    ensure_dassl()
    importlib.import_module("dplq.datasets")
    from dassl.data.datasets import DATASET_REGISTRY

    if name not in DATASET_REGISTRY.registered_names():
        return Origin("data", name)
    declared: Any = DATASET_REGISTRY.get(name)
    page = str(getattr(declared, "homepage", UNKNOWN))
    addresses = [page, *(address for address, *_ in getattr(declared, "download", ()))]
    pattern = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
    hub = next((found[1] for found in map(pattern.match, addresses) if found), "")
    licence = str(getattr(declared, "licence", UNKNOWN))
    return Origin(
        "data",
        name,
        UNKNOWN if licence in ("", "unknown") else licence,
        "" if page in ("", "unknown") else page,
        hub,
    )
