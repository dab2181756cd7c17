"""From structure files to batches of training examples."""
