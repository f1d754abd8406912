"""What the trainers share: the training loop, checkpoints, resume, validation, results."""
