"""Tasks: each says what the training loop needs of it."""
