"""The quaternion layer: explicit multiplication and the statistics of docs/method.md."""

from __future__ import annotations

import math

import pytest
import torch

from dplq.methods.quaternion import QuaternionLinear, initial_weights
from tests.references.naive_reference import hamilton


def layer_and_input(m=6, o=5, batch=4):
    generator = torch.Generator().manual_seed(0)
    layer = QuaternionLinear(4 * m, 4 * o, generator=generator).double()
    with torch.no_grad():
        layer.bias.normal_(generator=generator)
    return layer, torch.randn(batch, 4 * m, generator=generator).double()


def test_equals_explicit_hamilton_multiplication():
    """Every output quaternion is the sum of weight quaternion times input quaternion, W left."""
    layer, x = layer_and_input()
    weight = torch.stack([layer.r, layer.i, layer.j, layer.k], dim=-1)  # (m, o, 4)
    quaternions = torch.stack(x.chunk(4, dim=-1), dim=-1)  # (B, m, 4)
    product = hamilton(weight, quaternions.unsqueeze(2)).sum(dim=1)  # (B, o, 4)
    expected = torch.cat(product.unbind(-1), dim=-1) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-12)


def test_units_multiply_by_hamiltons_table():
    """i^2 = j^2 = k^2 = ijk = -1, with the weight on the left: W = i, x = j gives k."""
    table = {"ii": "-r", "jj": "-r", "kk": "-r", "ij": "k", "jk": "i", "ki": "j", "ji": "-k"}
    for (left, right), product in table.items():
        layer = QuaternionLinear(4, 4)
        with torch.no_grad():
            for name in "rijk":
                getattr(layer, name).fill_(float(name == left))
        out = layer(torch.tensor([float(name == right) for name in "rijk"]))
        sign = -1.0 if product[0] == "-" else 1.0
        assert out.tolist() == [sign * (name == product[-1]) for name in "rijk"]


@pytest.mark.parametrize("components", ["jk", "ri", "r", "kj"])
def test_absent_components_are_zero(components):
    layer, x = layer_and_input()
    parts = dict(zip("rijk", x.chunk(4, dim=-1), strict=True))
    given = torch.cat([parts[c] for c in components], dim=-1)
    full = torch.cat([parts[c] * (c in components) for c in "rijk"], dim=-1)
    few = QuaternionLinear(layer.in_features, layer.out_features, components=components)
    few.to(x.dtype).load_state_dict(layer.state_dict())
    torch.testing.assert_close(few(given), layer(full))


def test_column_blocks_of_the_release():
    """docs/method.md gives the release's real matrix by column blocks (rows: input r, i, j, k)."""
    layer, _ = layer_and_input()
    r, i, j, k = layer.r, layer.i, layer.j, layer.k
    columns = [[r, -i, -j, -k], [i, r, -k, j], [j, k, r, -i], [k, -j, i, r]]
    expected = torch.cat([torch.cat(column) for column in columns], dim=1)
    assert torch.equal(layer.matrix(), expected)


def test_norm_is_multiplicative():
    """|W x| = |W| |x| for a single quaternion."""
    layer = QuaternionLinear(4, 4, generator=torch.Generator().manual_seed(1)).double()
    x = torch.randn(4, generator=torch.Generator().manual_seed(2)).double()
    weight = torch.stack([layer.r, layer.i, layer.j, layer.k]).norm()
    torch.testing.assert_close(layer(x).norm(), weight * x.norm())


def test_a_quarter_of_the_parameters():
    layer = QuaternionLinear(1024, 512)
    assert sum(p.numel() for p in layer.parameters()) == 1024 * 512 // 4 + 512 == 131_584


def test_initialisation_statistics():
    """Modulus ~ chi(4) with scale 1/sqrt(2(m+o)); isotropic unit axis; uniform phase; bias 0."""
    m, o = 256, 192
    generator = torch.Generator().manual_seed(0)
    r, i, j, k = (w.double() for w in initial_weights(m, o, generator))
    scale = 1 / math.sqrt(2 * (m + o))
    modulus = torch.stack([r, i, j, k]).norm(dim=0) / scale
    chi_mean = math.sqrt(2) * math.gamma(2.5) / math.gamma(2)
    assert modulus.mean().item() == pytest.approx(chi_mean, rel=0.005)
    assert modulus.var().item() == pytest.approx(4 - chi_mean**2, rel=0.03)
    assert modulus.square().mean().item() == pytest.approx(4, rel=0.01)
    assert (r.square().mean() / scale**2).item() == pytest.approx(2, rel=0.02)  # cos^2: half of 4
    for axis in (i, j, k):
        assert (axis.square().mean() / scale**2).item() == pytest.approx(2 / 3, rel=0.03)
        assert axis.mean().abs().item() < 0.02 * scale
    phase = torch.atan2(torch.stack([i, j, k]).norm(dim=0), r)  # |phase|: uniform on (0, pi)
    counts = torch.histc(phase, bins=8, min=0, max=math.pi) / phase.numel()
    assert (counts - 1 / 8).abs().max() < 0.01
    assert torch.equal(QuaternionLinear(8, 8).bias, torch.zeros(8))


def test_modulus_quartiles():
    """Quartiles of chi with 4 degrees of freedom (solutions of 1-(1+q)exp(-q), q = x^2/2)."""
    generator = torch.Generator().manual_seed(3)
    parts = torch.stack(initial_weights(200, 200, generator)).double()
    modulus = (parts.norm(dim=0) * math.sqrt(800)).flatten()
    for share in (0.25, 0.5, 0.75):
        q = modulus.quantile(share).item() ** 2 / 2
        assert 1 - (1 + q) * math.exp(-q) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("widths", [(6, 8), (8, 6), (0, 8)])
def test_widths_must_be_multiples_of_four(widths):
    with pytest.raises(ValueError, match="must be a positive multiple of 4, not"):
        QuaternionLinear(*widths)
