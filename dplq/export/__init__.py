"""Classifiers as programs that need no dplq: torch.export's ``.pt2``, and ONNX."""
