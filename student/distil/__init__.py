"""Stage 2: the trainer that adds the cached targets to a training."""
