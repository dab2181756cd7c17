from app.ops.pair_bias_attention.fused import pair_bias_attention

__all__ = ["pair_bias_attention"]
