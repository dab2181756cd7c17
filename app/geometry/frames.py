"""Rigid frames: from backbone atoms, applied, inverted, composed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.geometry import rotations
from app.types import Frames


def frames_from_backbone(n: Tensor, ca: Tensor, c: Tensor) -> Frames:
    """Frames with origin CA, x axis along CA -> C and N in the xy plane, y > 0 (AlphaFold 2, algorithm 21).

    n, ca, c: [..., 3] in any one unit; the translation is CA in that unit.
    """
    x = F.normalize(c - ca, dim=-1)
    to_n = n - ca
    y = F.normalize(to_n - (to_n * x).sum(-1, keepdim=True) * x, dim=-1)
    z = torch.linalg.cross(x, y, dim=-1)
    return Frames(torch.stack([x, y, z], dim=-1), ca)


def apply(frames: Frames, points: Tensor) -> Tensor:
    """Local -> global. points: [..., P, 3] in the frames' unit, frames [...]."""
    return points @ frames.rotmats.mT + frames.trans[..., None, :]


def apply_inverse(frames: Frames, points: Tensor) -> Tensor:
    """Global -> local. points: [..., P, 3] in the frames' unit, frames [...]."""
    return (points - frames.trans[..., None, :]) @ frames.rotmats


def centred(frames: Frames, mask: Tensor) -> Frames:
    """The frames moved so that the mean of the present translations is 0: float32 keeps its digits for distances.

    frames: [..., N]; mask: [..., N], 1 = present; without any, they stay. No gradient goes through the centre: what
    calls this must not depend on it.
    """
    weight = (mask / mask.sum(-1, keepdim=True).clamp(min=1))[..., None]
    centre = (weight * frames.trans).sum(-2, keepdim=True).detach()
    return Frames(frames.rotmats, frames.trans - centre)


def update(frames: Frames, step: Tensor, mask: Tensor) -> Frames:
    """Compose each frame with a small rigid motion given in its own coordinates (AlphaFold 2, algorithm 23).

    step: [..., 6], three components of the quaternion (1, b, c, d), then a translation in the frames' unit.
    mask: [...], 1 where the frame moves.
    """
    imaginary, shift = (step * mask[..., None]).split(3, dim=-1)
    quaternion = torch.cat([torch.ones_like(imaginary[..., :1]), imaginary], dim=-1)
    rotmats = rotations.product(frames.rotmats, rotations.from_quaternion(quaternion))
    return Frames(rotmats, frames.trans + rotations.product(frames.rotmats, shift[..., None]).squeeze(-1))
