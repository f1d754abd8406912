"""Methods that change CLIP's weights by a small learnable delta."""
