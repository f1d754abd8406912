"""Files: checkpoints, public weights, specs, atomic writes, digests, the cache folder."""
