from app.ops.factorised_attention.widened import factorised_attention

__all__ = ["factorised_attention"]
