"""Checkpoints of other programs: the only place that knows their names and quirks."""
