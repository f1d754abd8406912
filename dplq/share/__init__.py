"""Models to share: a folder with checkpoint, config, metrics and card, or a Hub repository."""
