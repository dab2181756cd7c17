"""The small parts of a backbone-updating block: node transition, edge transition, backbone update."""

import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.linear import Linear
from app.devices import full_precision
from app.geometry import frames as frame
from app.ops.edge_transition import edge_transition
from app.types import Frames


class NodeTransition(nn.Module):
    """Three-layer residual MLP with a LayerNorm after it (AlphaFold 2, algorithm 20, lines 8-9)."""

    def __init__(self, c_s: int):
        super().__init__()
        self.first = Linear(c_s, c_s, init="relu")
        self.second = Linear(c_s, c_s, init="relu")
        self.last = Linear(c_s, c_s, init="zero")
        self.norm = nn.LayerNorm(c_s)

    def forward(self, node: Tensor) -> Tensor:
        """[B, N, c_s] -> [B, N, c_s]."""
        return self.norm(node + self.last(F.relu(self.second(F.relu(self.first(node))))))


class EdgeTransition(nn.Module):
    """Edges updated from themselves and their two nodes, narrowed to half (FrameDiff, Yim et al. 2023, app. I)."""

    operations = ("edge_transition",)

    def __init__(self, c_s: int, c_z: int):
        super().__init__()
        narrow = c_s // 2
        hidden = c_z + 2 * narrow
        self.narrow = Linear(c_s, narrow, init="relu")
        self.first = Linear(hidden, hidden, init="relu")
        self.second = Linear(hidden, hidden, init="relu")
        self.last = Linear(hidden, c_z, init="zero")
        self.norm = nn.LayerNorm(c_z)

    def forward(self, node: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        """node: [B, N, c_s], edge: [B, N, N, c_z], mask: [B, N, N] -> edge, 0 where absent."""
        layers = [(layer.weight, layer.bias) for layer in (self.first, self.second, self.last, self.norm)]
        return edge_transition(edge, self.narrow(node), *layers, mask)


class BackboneUpdate(nn.Module):
    """Each frame moved, in its own coordinates, by a rigid motion read from its node (AlphaFold 2, algorithm 23)."""

    def __init__(self, c_s: int):
        super().__init__()
        self.linear = Linear(c_s, 6, init="zero")

    def forward(self, node: Tensor, frames: Frames, mask: Tensor) -> Frames:
        """node: [B, N, c_s]; frames: [B, N], nanometre; mask: [B, N], 1 where the frame moves."""
        with full_precision(node.device):
            return frame.update(frames, self.linear(node.float()), mask)
