"""Linear layers with the initialisations of AlphaFold 2 (supplement 1.11.4)."""

from typing import Literal

from torch import nn

_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut at two."""


class Linear(nn.Linear):
    """A linear layer [..., in] -> [..., out] with zero bias and weights by `init`.

    lecun: truncated normal of variance 1 / fan-in. relu: 2 / fan-in (He et al. 2015). zero: the layer closes a residual
    branch, which starts as the identity, or feeds a gate, which starts half open.
    """

    def __init__(self, c_in: int, c_out: int, init: Literal["lecun", "relu", "zero"] = "lecun", bias: bool = True):
        super().__init__(c_in, c_out, bias=bias)
        if bias:
            nn.init.zeros_(self.bias)
        if init == "zero":
            nn.init.zeros_(self.weight)
        else:
            std = ((2.0 if init == "relu" else 1.0) / c_in) ** 0.5 / _TRUNCATED_STD
            nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
