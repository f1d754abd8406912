"""Linear head on the features of both encoders, for the classes of the training images.

Prompts have few degrees of freedom: where images of a class were given, a linear classifier on
frozen features is more accurate, but it cannot score other classes. So it takes part among trained
classes only (docs/method.md, "Variants").
"""

from __future__ import annotations

import torch
from torch import Tensor

from dplq.methods.heads.base import Fitted
from dplq.methods.heads.logistic import fit, linear_layer

C = 100.0  # inverse regularisation strength, for features of mean square 1 / width


def statistics(features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (d,) of features (N, d); 1 where all are equal.

    Args:
        features: (N, d).
        weights: (N,), how often each row counts; None: once.
    """
    if weights is None:
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    else:
        share = weights / weights.sum()
        mean = share @ features
        std = (share @ (features - mean) ** 2).sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.ones_like(std))


class DomainHead(Fitted):
    """Multinomial logistic regression on CLIP's image feature and the domain feature.

    It is fitted once, by no gradient steps, to the features of the training images.

    Args:
        classes: number of trained classes K.
        clip_width: d, of CLIP's image feature.
        domain_width: d_f, of the domain feature; 0: none.
    """

    def __init__(self, classes: int, clip_width: int, domain_width: int) -> None:
        self.widths = (clip_width, domain_width)
        super().__init__(self._zeros(classes), learned=())

    def _zeros(self, classes: int) -> dict[str, Tensor]:
        return {"weight": torch.zeros(classes, sum(self.widths)), "bias": torch.zeros(classes)}

    def resize(self, classes: int) -> None:
        """Hold zeros for so many classes, to be loaded over."""
        self.put(**self._zeros(classes))

    def fit(self, features: Tensor, labels: Tensor, class_weight: str | None = None) -> None:
        """Fit the head to standardised features, and fold the standardisation into it.

        Args:
            features: (N, d + d_f), of CLIP and of the domain encoder side by side.
            labels: (N,), each of the K classes at least once.
            class_weight: as for `dplq.methods.heads.logistic.fit`.
        """
        if len(self.weight) == 1:
            return  # there is nothing to decide
        features = features.double().cpu()
        mean, std = statistics(features)
        # Each encoder's part counts alike, whatever its width.
        widths = torch.tensor(self.widths)
        scale = std * widths.repeat_interleave(widths).sqrt()
        standard = (features - mean) / scale
        model = fit((standard.numpy(), labels.cpu().numpy()), C, class_weight)
        weight, bias = map(torch.from_numpy, linear_layer(model))
        weight = weight / scale
        self.put(weight=weight, bias=bias - weight @ mean)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d + d_f)."""
        return features @ self.weight.T + self.bias
