from app.ops.double_attention.reference import double_attention

__all__ = ["double_attention"]
