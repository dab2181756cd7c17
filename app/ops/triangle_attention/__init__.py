from app.ops.triangle_attention.chunked import triangle_attention

__all__ = ["triangle_attention"]
