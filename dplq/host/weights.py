"""The weights of a run, found before its images are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dplq.clip.sources import find_source
from dplq.domain.arguments import one_or_several, several
from dplq.domain.load import find_domain_weights
from dplq.errors import UserError
from dplq.host.checks import reads_domain
from dplq.io.nodes import flatten


def check_weights(cfg: Any, trainer: Any) -> None:
    """Find the files with the frozen weights of a run; download what has to be.

    Only names are resolved: no tensor is loaded, and nothing is built.

    Args:
        cfg: of `train.py`, or of a host tree.
        trainer: its class.

    Raises:
        UserError: an unknown name, or a file that is not there and cannot be downloaded; a line
            for CLIP and one for the domain encoder.
    """
    backbone, problems = cfg.MODEL.BACKBONE, []
    try:
        find_source(backbone.NAME, cfg.MODEL.INIT_WEIGHTS, backbone.PRETRAINED, seed=0)
    except UserError as error:
        problems.append(str(error))
    if reads_domain(trainer, dict(flatten(cfg))):
        names, files = domain_names(cfg.DOMAIN)
        try:
            find_domain_weights(names, weights=files, pretrained=cfg.DOMAIN.PRETRAINED)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(*problems)


def domain_names(domain: Any) -> tuple[list[str], str | Sequence[str]]:
    """Return the encoders that ``cfg.DOMAIN`` names, and their files."""
    files = domain.WEIGHTS  # a host's config keeps a list as text
    files = one_or_several(files) if isinstance(files, str) else list(files)
    return several(domain.ENCODER), files
