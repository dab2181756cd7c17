from app.ops.invariant_point_attention.reference import invariant_point_attention

__all__ = ["invariant_point_attention"]
