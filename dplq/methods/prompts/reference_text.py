"""Text features of hand-written prompts, which several methods keep close to or start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dplq.clip.templates import DEFAULT_TEMPLATE, check_template, ensemble_features
from dplq.methods.base import PromptedCLIP
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class ReferenceTextSettings(MethodSettings):
    """The hand-written text; not part of a checkpoint's structure, as datasets differ in it."""

    template: str = option(
        "", "hand-written text, {} for the class name; empty: the dataset's zero-shot text"
    )

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: naming the first field that is wrong, by its config key.
        """
        super().__post_init__()
        if self.template:
            check_template(self.template)


class ReferenceTextModel(PromptedCLIP):
    """A prompted CLIP with the features of hand-written texts beside it, encoded on first use."""

    _reference: Tensor | None = None

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on; the features of the others are forgotten."""
        super().set_classnames(classnames)
        self._reference = None

    def reference_text(self) -> Tensor:
        """Return L2-normalised features (1, K, d) of the frozen CLIP, float32."""
        device = self.clip.logit_scale.device
        if self._reference is None or self._reference.device != device:
            with torch.inference_mode(False), torch.no_grad():  # a later step may need them
                self._reference = self.encode_reference().unsqueeze(0)
        return self._reference

    def encode_reference(self) -> Tensor:
        """Return the features (K, d) of the one text of the settings, `template`."""
        template = self.settings["template"] or DEFAULT_TEMPLATE
        return ensemble_features(self.clip, self.classnames, [template], normalize_each=True)
