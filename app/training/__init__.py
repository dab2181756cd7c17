"""Training on Lightning: the module, its recipe, checkpoints, logs."""
