from app.ops.triangle_multiplication.chunked import triangle_multiplication
from app.ops.triangle_multiplication.reference import Direction

__all__ = ["Direction", "triangle_multiplication"]
