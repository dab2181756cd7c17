"""Rigid frames, rotations, superposition, units: float32, differentiable, free of operators that MPS lacks."""
