"""Residue types as a discrete flow (Campbell et al. 2024, section 4): with probability 1 - t a clean token gives way to
the mask token ("masking") or to one of the twenty residue types at random ("uniform").

Every function takes the uniform random numbers it consumes, so that a sampler decides where they come from.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.chem.residues import MASK_TOKEN, NUM_AATYPES, NUM_TOKENS

_TIE = 1e4  # certainties that agree to 1 / _TIE in log-probability count as equal, see `purity_step`


def corrupt(tokens: Tensor, t: Tensor, kind: str, when: Tensor, what: Tensor) -> Tensor:
    """Tokens [B, N] at time t [B, 1]. when, what: [B, N] uniform numbers deciding whether and into what they change."""
    noise = noise_tokens(kind, what)
    return torch.where(when < 1 - t, noise, tokens)


def noise_tokens(kind: str, uniform: Tensor) -> Tensor:
    """Tokens at time 0, [B, N] int64: all masked, or uniform over the twenty residue types."""
    if kind == "masking":
        return torch.full_like(uniform, MASK_TOKEN, dtype=torch.int64)
    return (uniform * NUM_AATYPES).long().clamp(max=NUM_AATYPES - 1)


def residue_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Softmax over the twenty residue types, [B, N, 20 or 21] -> [B, N, 21]; 0 for the mask token, the last."""
    estimate = torch.softmax(logits[..., :NUM_AATYPES].float() / temperature, dim=-1)
    return F.pad(estimate, (0, 1))


class Rates(NamedTuple):
    """What a step of the tokens reads of its time and noise: plain numbers, or tensors of one number each."""

    step: float | Tensor
    jump: float | Tensor  # rate at which a token jumps to the residue types, as the estimate shares it out
    noise: float | Tensor  # rate at which noise undoes that
    unmask: float | Tensor  # probability that a masked token is unmasked in a purity step
    remask: float | Tensor  # probability that a token is masked again after it


def rates(t: float, step: float, noise: float, kind: str = "masking") -> Rates:
    """Rates of the Euler step from t to t + step (Campbell et al. 2024), with detailed-balance noise of that strength.

    They are worked out in double precision, once a step and not once a residue.
    """
    jump = (1 + noise * t if kind == "masking" else 1 + noise + noise * (NUM_AATYPES - 1) * t) / (1 - t)
    return Rates(step, jump, noise, unmask=min(1.0, step * (1 + noise * t) / (1 - t)), remask=step * noise)


def step_probabilities(
    logits: Tensor,
    tokens: Tensor,
    rates: Rates,
    *,
    kind: str,
    temperature: float,
    resample_unmasked: bool = False,
) -> Tensor:
    """Weights [B, N, 21] of the tokens after a step given those before: one Euler step of the jump process.

    They sum to 1 unless the step is too large for its rates; then to more, and `draw` takes their proportions. With
    masking, only masked tokens jump to residue types and all others fall back to the mask at the rate of the noise.
    resample_unmasked: Multiflow's quirk, residues already there jump to other types at the rate of masked ones.
    """
    estimate = residue_probabilities(logits, temperature)
    masked = tokens == MASK_TOKEN
    rate = estimate * rates.jump
    if kind == "masking":
        if not resample_unmasked:
            rate = rate * masked[..., None]
        to_mask = torch.arange(NUM_TOKENS, device=tokens.device) == MASK_TOKEN
        rate = rate + rates.noise * (~masked)[..., None] * to_mask
    else:
        types = torch.arange(NUM_TOKENS, device=tokens.device) != MASK_TOKEN
        rate = rate + rates.noise * estimate.gather(-1, tokens[..., None]) * types
    leaving = (rate * rates.step).clamp(0, 1).scatter(-1, tokens[..., None], 0.0)
    staying = (1 - leaving.sum(-1, keepdim=True)).clamp(0, 1)
    return leaving.scatter(-1, tokens[..., None], staying)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Categorical draw by inversion: probabilities [B, N, S] of any positive sum, uniform [B, N] -> [B, N] int64."""
    cumulative = probabilities.cumsum(-1)
    threshold = (uniform * cumulative[..., -1])[..., None]
    return (cumulative <= threshold).sum(-1).clamp(max=probabilities.shape[-1] - 1)


def plain_step(logits: Tensor, tokens: Tensor, rates: Rates, uniform: Tensor, **how) -> Tensor:
    """Tokens [B, N] after a step, drawn from `step_probabilities`, whose keyword arguments it takes."""
    return draw(step_probabilities(logits, tokens, rates, **how), uniform)


def purity_step(
    logits: Tensor, tokens: Tensor, rates: Rates, uniform: Tensor, *, mask: Tensor, temperature: float
) -> Tensor:
    """Tokens [B, N] after a step, unmasking the most certain positions first (Campbell et al. 2024, appendix F).

    How many are unmasked is binomial over the masked ones; then every token may be masked again. uniform: [4, B, N].
    mask: [B, N], positions that may be unmasked. At low temperature many certainties are 1 to the last digit; their
    order must not hang on rounding, which differs between batch sizes and devices, so near-ties are broken by the
    random numbers.
    """
    count_u, token_u, tie_u, remask_u = uniform
    estimate = residue_probabilities(logits, temperature)
    candidate = (tokens == MASK_TOKEN) & mask.bool()
    number = ((count_u < rates.unmask) & candidate).sum(-1, keepdim=True)
    certainty = estimate.amax(-1).log()
    score = ((certainty * _TIE).round() - tie_u).masked_fill(~candidate, -torch.inf)
    rank = score.argsort(dim=-1, descending=True).argsort(dim=-1)
    tokens = torch.where(candidate & (rank < number), draw(estimate, token_u), tokens)
    return tokens.masked_fill(remask_u < rates.remask, MASK_TOKEN)
