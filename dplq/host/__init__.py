"""The toolkit around the library: which Dassl is in use, and the config keys added to it."""
