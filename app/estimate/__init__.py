"""What a model and its training need, found without making them: FLOPs, and memory at its peak."""
