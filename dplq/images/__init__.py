"""Images: preprocessing, and the cache of decoded images."""
