"""Images on their way to a model: reading and caching."""
