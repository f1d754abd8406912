"""Training infrastructure: data loaders, feature cache, precision, schedule, seeding."""

PRECISIONS = ("fp32", "fp16", "amp", "bf16")  # here: plans of runs name them without torch
