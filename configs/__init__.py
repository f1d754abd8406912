"""Config files as package data: `datasets/*.yaml` and `trainers/<Trainer>/*.yaml`."""
