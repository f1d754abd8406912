"""Backbones and heads for `SimpleNet`: torchvision's ResNets and an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dassl.utils import InputError, Registry, check_availability

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Build the backbone registered as `name`; it has an `out_features`."""
    return BACKBONE_REGISTRY.build(name, announce="Backbone" if verbose else "", **kwargs)


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Build the head registered as `name`; it has an `out_features`."""
    return HEAD_REGISTRY.build(name, announce="Head" if verbose else "", **kwargs)


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Build the network registered as `name`."""
    return NETWORK_REGISTRY.build(name, announce="Network" if verbose else "", **kwargs)


class Backbone(nn.Module):
    """Base class: a subclass sets ``self._out_features`` and defines `forward`."""

    @property
    def out_features(self) -> int | None:
        """Width of the features."""
        return self.__dict__.get("_out_features")


class TorchvisionResNet(Backbone):
    """A torchvision ResNet without its classifier: (B, 3, H, W) -> (B, out_features).

    Args:
        name: torchvision's name.
        pretrained: load the ImageNet weights (downloaded once).
    """

    def __init__(self, name: str, pretrained: bool):
        super().__init__()
        from torchvision import models

        self.net = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
        self._out_features = self.net.fc.in_features
        self.net.fc = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled features."""
        return self.net(x)


def _register_resnet(name: str) -> None:
    def build(pretrained: bool = True, **kwargs: Any) -> TorchvisionResNet:
        return TorchvisionResNet(name, pretrained)

    build.__name__ = name
    BACKBONE_REGISTRY.register(build)


for _name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
    _register_resnet(_name)


class MLP(nn.Module):
    """Linear, (BatchNorm), activation, (dropout), for each hidden layer.

    Args:
        in_features: input width.
        hidden_layers: widths; the last is `out_features`.
        activation: "relu" or "leaky_relu".
        bn: with BatchNorm.
        dropout: probability; 0: none.
    """

    def __init__(
        self,
        in_features: int = 2048,
        hidden_layers: int | Sequence[int] = (),
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_availability(activation, _ACTIVATIONS, "MODEL.HEAD.ACTIVATION")
        widths = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not widths:
            raise InputError("MODEL.HEAD.HIDDEN_LAYERS is empty")
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([in_features, *widths], widths, strict=False):
            layers.append(nn.Linear(fan_in, fan_out))
            if bn:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(_ACTIVATIONS[activation](inplace=True))
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        self.mlp = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_features) to (B, out_features)."""
        return self.mlp(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs: Any) -> MLP:
    """Build an `MLP`."""
    return MLP(**kwargs)
