"""Algorithms of AlphaFold 3 (Abramson et al. 2024, supplement) in double precision, every index a loop.

Edges are arrays z[i, j, channel], nodes s[i, channel]; `present` lists the residues that exist, over which sums and
softmax run. Weights come as arrays by name, those of one module picked with `part`.
"""

import numpy as np
from torch import Tensor, nn

Weights = dict[str, np.ndarray]


def weights_of(module: nn.Module) -> Weights:
    return {name: array(tensor) for name, tensor in module.state_dict().items()}


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def part(weights: Weights, name: str) -> Weights:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    """LayerNorm of one vector."""
    centred = x - x.mean()
    scaled = centred / np.sqrt((centred**2).mean() + 1e-5)
    return scaled * w[f"{name}.weight"] + w.get(f"{name}.bias", 0.0)


def linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    """LinearNoBias or, where the layer has a bias, Linear, of one vector."""
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: list[float]) -> np.ndarray:
    exponentials = np.exp(np.array(x) - max(x))
    return exponentials / exponentials.sum()


def triangle_multiplication(z: np.ndarray, present: list[int], w: Weights, outgoing: bool) -> np.ndarray:
    """Algorithm 12 (outgoing) and 13 (incoming). The layers of a and b are the upper and lower half of one."""
    n, _, c = z.shape
    a, b, g = (np.zeros((n, n, c)) for _ in range(3))
    for i in range(n):
        for j in range(n):
            x = norm(z[i, j], w, "norm_in")
            gated = sigmoid(linear(x, w, "g_in")) * linear(x, w, "p_in")
            a[i, j], b[i, j] = gated[:c], gated[c:]
            g[i, j] = sigmoid(linear(x, w, "g_out"))
    out = np.zeros((n, n, c))
    for i in present:
        for j in present:
            total = np.zeros(c)
            for k in present:
                total += a[i, k] * b[j, k] if outgoing else a[k, i] * b[k, j]
            out[i, j] = g[i, j] * linear(norm(total, w, "norm_out"), w, "p_out")
    return out


def triangle_attention(z: np.ndarray, present: list[int], w: Weights, heads: int, starting: bool) -> np.ndarray:
    """Algorithm 14 (starting node) and 15 (ending node)."""
    n, _, c_z = z.shape
    q, k, v, g = ({} for _ in range(4))
    b = {}
    for i in range(n):
        for j in range(n):
            x = norm(z[i, j], w, "norm")
            q[i, j], k[i, j], v[i, j] = (linear(x, w, name).reshape(heads, -1) for name in ("q", "k", "v"))
            b[i, j] = linear(x, w, "pair_bias")
            g[i, j] = sigmoid(linear(x, w, "gate")).reshape(heads, -1)
    c = q[0, 0].shape[1]
    out = np.zeros((n, n, c_z))
    for i in present:
        for j in present:
            o = np.zeros((heads, c))
            for h in range(heads):
                if starting:
                    logits = [q[i, j][h] @ k[i, m][h] / np.sqrt(c) + b[j, m][h] for m in present]
                    values = [v[i, m][h] for m in present]
                else:
                    logits = [q[i, j][h] @ k[m, j][h] / np.sqrt(c) + b[m, i][h] for m in present]
                    values = [v[m, j][h] for m in present]
                o[h] = g[i, j][h] * sum(a * value for a, value in zip(softmax(logits), values, strict=True))
            out[i, j] = linear(o.reshape(-1), w, "out")
    return out


def transition(x: np.ndarray, w: Weights) -> np.ndarray:
    """Algorithm 11, vector by vector."""
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape[:-1]):
        y = norm(x[index], w, "norm")
        a, b = linear(y, w, "gate"), linear(y, w, "hidden")
        out[index] = linear(a * sigmoid(a) * b, w, "out")
    return out


def attention_pair_bias(s: np.ndarray, z: np.ndarray, present: list[int], w: Weights, heads: int) -> np.ndarray:
    """Algorithm 24 without conditioning: beta is 0 for present residues and minus infinity for others."""
    n, c_s = s.shape
    a = [norm(s[i], w, "norm") for i in range(n)]
    q, k, v = ([linear(x, w, name).reshape(heads, -1) for x in a] for name in ("q", "k", "v"))
    g = [sigmoid(linear(x, w, "gate")).reshape(heads, -1) for x in a]
    c = c_s // heads
    out = np.zeros((n, c_s))
    for i in present:
        o = np.zeros((heads, c))
        for h in range(heads):
            bias = [linear(norm(z[i, j], w, "norm_edge"), w, "pair_bias")[h] for j in present]
            logits = [q[i][h] @ k[j][h] / np.sqrt(c) + b for j, b in zip(present, bias, strict=True)]
            o[h] = g[i][h] * sum(weight * v[j][h] for weight, j in zip(softmax(logits), present, strict=True))
        out[i] = linear(o.reshape(-1), w, "out")
    return out


def multiplications(z: np.ndarray, present: list[int], w: Weights) -> np.ndarray:
    """Algorithm 17, lines 1 and 2, in inference."""
    z = z + triangle_multiplication(z, present, part(w, "outgoing"), outgoing=True)
    return z + triangle_multiplication(z, present, part(w, "incoming"), outgoing=False)


def attentions(z: np.ndarray, present: list[int], w: Weights, heads: int) -> np.ndarray:
    """Algorithm 17, lines 3 and 4, in inference."""
    z = z + triangle_attention(z, present, part(w, "starting"), heads, starting=True)
    return z + triangle_attention(z, present, part(w, "ending"), heads, starting=False)


def pair_track(z: np.ndarray, present: list[int], w: Weights, heads: int) -> np.ndarray:
    """Algorithm 17, lines 1 to 5, in inference."""
    z = multiplications(z, present, part(w, "multiplication"))
    z = attentions(z, present, part(w, "attention"), heads)
    return z + transition(z, part(w, "transition"))


def node_track(s: np.ndarray, z: np.ndarray, present: list[int], w: Weights, heads: int) -> np.ndarray:
    """Algorithm 17, lines 6 and 7."""
    s = s + attention_pair_bias(s, z, present, part(w, "attention"), heads)
    return s + transition(s, part(w, "transition"))
