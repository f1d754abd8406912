"""Training infrastructure: data loaders, feature cache, precision, schedule, seeding."""
