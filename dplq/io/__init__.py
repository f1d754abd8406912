"""Files: runs' folders, checkpoints, public weights, atomic writes, digests, validation."""
