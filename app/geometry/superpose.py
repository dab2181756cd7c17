"""Rigid superposition (Kabsch 1976) and centring over a mask."""

import torch
from torch import Tensor


def masked_mean(points: Tensor, mask: Tensor) -> Tensor:
    """Mean over the residues present, [..., 1, 3]. points: [..., N, 3], mask: [..., N]; an empty mask gives 0."""
    weight = mask[..., None].to(points.dtype)
    return (points * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1)


def centre(points: Tensor, mask: Tensor) -> Tensor:
    """Points moved so that the mean over the mask is 0. Masked-out points move along."""
    return points - masked_mean(points, mask)


def kabsch(mobile: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Proper rotation and centres of the least-squares superposition of `mobile` on `target`.

    mobile, target: [..., N, 3]; mask: [..., N]. Returns rotation [..., 3, 3] and the two centres [..., 1, 3]:
    the superposed points are (mobile - mobile_centre) @ rotation.mT + target_centre.
    The 3 x 3 SVDs run on the CPU: they are tiny, and MPS has no SVD.
    """
    mobile_centre, target_centre = masked_mean(mobile, mask), masked_mean(target, mask)
    weight = mask[..., None].to(mobile.dtype)
    covariance = ((mobile - mobile_centre) * weight).mT @ (target - target_centre)
    u, _, vt = torch.linalg.svd(covariance.cpu())
    flip = torch.ones_like(u[..., 0])
    flip[..., -1] = torch.linalg.det(u @ vt).sign()
    rotation = (vt.mT * flip[..., None, :]) @ u.mT
    return rotation.to(mobile.device), mobile_centre, target_centre


def superpose(mobile: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`mobile` moved rigidly onto `target` with least squared distance over the mask, [..., N, 3]."""
    rotation, mobile_centre, target_centre = kabsch(mobile, target, mask)
    return (mobile - mobile_centre) @ rotation.mT + target_centre
