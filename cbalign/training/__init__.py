"""The training loop and step, the training state, the optimizer and checkpoints."""
