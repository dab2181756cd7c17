"""The rotation group SO(3): exponential, logarithm, geodesics, quaternions, uniform sampling.

Rotation vectors are axis times angle in radians, quaternions are (w, x, y, z). Everything is differentiable, gradients
are finite at the identity and at half turns, the dtype is the one given, and neither `eigh` nor float64 is needed (MPS
has none).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL = 1e-4  # radians; below it sin(x)/x and its kin are taken from their series, exact to float32 there
_HALF_TURN_WINDOW = 1e-2  # radians, Multiflow's


def identity(*shape: int, device=None, dtype=torch.float32) -> Tensor:
    """Identity rotations of shape [*shape, 3, 3]."""
    return torch.eye(3, device=device, dtype=dtype).expand(*shape, 3, 3).clone()


def product(first: Tensor, second: Tensor) -> Tensor:
    """[..., 3, 3] @ [..., 3, n], written out: a library may take TF32 where that is allowed for products, which frames
    do not bear; and a compiler fuses it with what is around it."""
    return (first[..., None] * second[..., None, :, :]).sum(-2)


def hat(vector: Tensor) -> Tensor:
    """Cross-product matrix: hat(v) @ u = v x u. [..., 3] -> [..., 3, 3]."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def exp(rotvec: Tensor) -> Tensor:
    """Rodrigues' formula: rotation vector [..., 3] -> rotation matrix [..., 3, 3]."""
    squared = rotvec.square().sum(-1, keepdim=True).unsqueeze(-1)
    small = squared < _SMALL**2
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    # (1 - cos x) / x^2, written so that it keeps its digits for small angles.
    second = torch.where(small, 0.5 - squared / 24, 2 * ((angle / 2).sin() / angle).square())
    skew = hat(rotvec)
    eye = torch.eye(3, device=rotvec.device, dtype=rotvec.dtype)
    return eye + first * skew + second * product(skew, skew)


def to_quaternion(rotmat: Tensor) -> Tensor:
    """Unit quaternion with w >= 0 of a rotation matrix, [..., 3, 3] -> [..., 4].

    Of the four algebraic forms, each of which divides by one component, the one with the largest divisor is taken,
    which is never under 1/2: accurate at every angle (Shepperd 1978).
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotmat.flatten(-2).unbind(-1)
    # Row k is 4 q_k (w, x, y, z).
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], -1),
            torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], -1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
        ],
        dim=-2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = F.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def from_quaternion(quaternion: Tensor) -> Tensor:
    """Rotation matrix of a quaternion of any non-zero norm, [..., 4] -> [..., 3, 3]."""
    w, x, y, z = F.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def log(rotmat: Tensor, half_turn: str = "exact") -> Tensor:
    """Rotation vector of angle in [0, pi], [..., 3, 3] -> [..., 3]. At half turns the sign of the axis is arbitrary.

    half_turn: "exact", or "positive" for Multiflow's logarithm, which within 0.01 rad of a half turn takes the axis
    whose largest component is positive, whatever the sense of the rotation.
    """
    quaternion = to_quaternion(rotmat)
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    squared = axis.square().sum(-1, keepdim=True)
    small = squared < _SMALL**2
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # angle / sin(angle / 2); its series is 2 + sin^2 / 3 near the identity.
    scale = torch.where(small, 2 + squared / 3, 2 * torch.atan2(sine, w) / sine)
    vector = scale * axis
    if half_turn == "positive":
        angle = vector.norm(dim=-1, keepdim=True)
        largest = vector.gather(-1, vector.abs().argmax(-1, keepdim=True))
        vector = torch.where((angle > torch.pi - _HALF_TURN_WINDOW) & (largest < 0), -vector, vector)
    return vector


def rotation_vector_field(start: Tensor, end: Tensor, half_turn: str = "exact") -> Tensor:
    """Tangent at `start` that reaches `end` in unit time, in the local frame of `start`: log(start^T end), [..., 3]."""
    return log(product(start.mT, end), half_turn)


def geodesic(t: Tensor, start: Tensor, end: Tensor, half_turn: str = "exact") -> Tensor:
    """Point at time t on the shortest path of constant speed from `start` (t = 0) to `end` (t = 1).

    t: broadcastable to [...]; start, end: [..., 3, 3]. t may exceed 1. half_turn: see `log`.
    """
    return product(start, exp(t[..., None] * rotation_vector_field(start, end, half_turn)))


def from_gaussian_quaternions(gaussian: Tensor) -> Tensor:
    """Uniform (Haar) rotations from standard normal numbers [..., 4] -> [..., 3, 3] (Shoemake 1992)."""
    return from_quaternion(gaussian)
