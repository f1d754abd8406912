"""Files: checkpoints, foreign weights, atomic writes, the cache folder."""
