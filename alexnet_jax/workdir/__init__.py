"""A run's directory: config, environment, metrics and checkpoints."""
