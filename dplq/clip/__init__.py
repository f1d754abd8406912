"""Frozen CLIP backbones with promptable towers."""
