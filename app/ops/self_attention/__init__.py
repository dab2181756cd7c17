from app.ops.self_attention.reference import self_attention

__all__ = ["self_attention"]
