"""The Hamilton-product linear layer: algebra only.

A vector of 4m numbers is read as m quaternions stored component-wise, ``[r | i | j | k]``. The
layer multiplies the input quaternion x from the left by a weight quaternion W = R + Ii + Jj + Kk
of matrices (docs/method.md, "Quaternion linear layer")::

    (W x)_r = R x_r - I x_i - J x_j - K x_k
    (W x)_i = I x_r + R x_i - K x_j + J x_k
    (W x)_j = J x_r + K x_i + R x_j - I x_k
    (W x)_k = K x_r - J x_i + I x_j + R x_k
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

COMPONENTS = "rijk"


class QuaternionLinear(nn.Module):
    """Linear map of quaternion vectors with a quarter of a dense layer's weights.

    Parameters `r`, `i`, `j`, `k` have shape (in_features / 4, out_features / 4), `bias` has
    shape (out_features,).

    Args:
        in_features: input width 4m.
        out_features: output width 4o.
        components: the components that inputs hold; all others are zero and cost nothing.
        generator: source of the random initial weights; None takes torch's global one.

    Raises:
        ValueError: a width is not a positive multiple of 4.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        components: str = COMPONENTS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, width in (("in_features", in_features), ("out_features", out_features)):
            if width <= 0 or width % 4:
                raise ValueError(f"{name} must be a positive multiple of 4, not {width}")
        self.in_features, self.out_features = in_features, out_features
        self.components = components
        weights = initial_weights(in_features // 4, out_features // 4, generator)
        self.r, self.i, self.j, self.k = (nn.Parameter(weight) for weight in weights)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def matrix(self) -> Tensor:
        """The real matrix of the layer, rows by input component, columns r, i, j, k.

        Returns:
            Tensor of shape (len(components) * m, 4o).
        """
        r, i, j, k = self.r, self.i, self.j, self.k
        rows = {"r": (r, i, j, k), "i": (-i, r, k, -j), "j": (-j, -k, r, i), "k": (-k, j, -i, r)}
        return torch.cat([torch.cat(rows[component], dim=1) for component in self.components])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the weight quaternion and add the bias.

        Args:
            x: (..., len(components) * m), the layer's components side by side.

        Returns:
            Tensor of shape (..., 4o).
        """
        return x @ self.matrix() + self.bias

    def extra_repr(self) -> str:
        """Return the widths, for `print`."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def initial_weights(
    m: int, o: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random R, I, J, K of shape (m, o) (Parcollet et al.'s quaternion initialisation).

    The modulus follows a chi distribution with 4 degrees of freedom and scale
    1 / sqrt(2 (m + o)); the imaginary axis is random, the phase uniform on (-pi, pi).
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(shape).uniform_(low, high, generator=generator)

    modulus = torch.randn(4, m, o, generator=generator).norm(dim=0) / math.sqrt(2 * (m + o))
    axis = uniform(-1, 1, 3, m, o)
    axis = axis / (axis.square().sum(dim=0) + 1e-4).sqrt()
    phase = uniform(-math.pi, math.pi, m, o)
    i, j, k = modulus * phase.sin() * axis
    return modulus * phase.cos(), i, j, k
