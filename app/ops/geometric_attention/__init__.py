from app.ops.geometric_attention.chunked import geometric_attention

__all__ = ["geometric_attention"]
