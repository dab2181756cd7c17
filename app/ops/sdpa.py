"""Which of the kernels behind torch's `scaled_dot_product_attention` may serve."""

from torch.nn.attention import SDPBackend

SOUND = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which gives NaN gradients for some masks (pytorch 196678)."""
