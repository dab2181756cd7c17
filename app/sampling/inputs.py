"""What a sampling run starts from: the caller's tensors checked, the rest drawn or filled in."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Integral

import torch
from torch import Tensor

from app.chem.residues import NUM_TOKENS
from app.errors import UserError
from app.flow import tokens, translations
from app.geometry.rotations import from_gaussian_quaternions, identity
from app.sampling.draws import Draws
from app.sampling.settings import SAMPLERS, SamplerSettings
from app.types import Frames


class Task(Enum):
    """What is given and what is designed."""

    UNCONDITIONAL = "unconditional"  # nothing is given
    FORWARD_FOLDING = "forward_folding"  # the sequence is given
    INVERSE_FOLDING = "inverse_folding"  # the structure is given
    PARTIAL = "partial"  # of some residues everything is given

    @property
    def gives_tokens(self) -> bool:
        return self is Task.FORWARD_FOLDING

    @property
    def gives_frames(self) -> bool:
        return self is Task.INVERSE_FOLDING

    @property
    def needs_structure(self) -> bool:
        """Whether a sequence alone does not do."""
        return self in (Task.INVERSE_FOLDING, Task.PARTIAL)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the tensors that a caller has to give."""
        if self is Task.PARTIAL:
            return ("aatypes_1", "trans_1", "rotmats_1", "diffuse_mask")
        return ("aatypes_1",) * self.gives_tokens + ("trans_1", "rotmats_1") * self.gives_frames


_TRAILING = {"trans_0": (3,), "rotmats_0": (3, 3), "trans_1": (3,), "rotmats_1": (3, 3)}


@dataclass
class Start:
    """Everything that is settled before the first model call. B designs, N residues."""

    frames: Frames  # noise, angstrom
    tokens: Tensor  # [B, N] int64, noise
    given_frames: Frames  # where frames_move is false, the frames that stay
    given_tokens: Tensor  # [B, N] int64, where tokens_move is false, the tokens that stay
    res_mask: Tensor  # [B, N] float
    diffuse_mask: Tensor  # [B, N] float
    chain_idx: Tensor  # [B, N] int64
    res_idx: Tensor  # [B, N] int64, as the model sees it
    peptide_bond: Tensor  # [B, N] bool, the next residue is bonded to this one
    moves: Tensor  # [B, N] bool, present and designed
    frames_move: Tensor  # [B, N] bool
    tokens_move: Tensor  # [B, N] bool
    draws: Draws

    def keep_given(self, frames: Frames, sequence: Tensor) -> tuple[Frames, Tensor]:
        """Frames and tokens with the given ones in their places."""
        mask = self.frames_move[..., None]
        kept = Frames(
            torch.where(mask[..., None], frames.rotmats, self.given_frames.rotmats),
            torch.where(mask, frames.trans, self.given_frames.trans),
        )
        return kept, torch.where(self.tokens_move, sequence, self.given_tokens)


def prepare(
    task: Task,
    sampler: SamplerSettings,
    seed: int | Sequence[int],
    lengths: Sequence[int] | None,
    device: torch.device,
    given: dict[str, Tensor | None],
) -> Start:
    """The start of a run. given: the tensors `sample` takes, None where the caller gave none. Raises UserError."""
    given = {name: value.to(device) for name, value in given.items() if value is not None}
    for name in task.needs:
        if name not in given:
            raise UserError(f"task={task.value} needs {name}: give {' and '.join(task.needs)}")
    size, length = _shape(given, lengths)
    for name, value in given.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{name} holds values that are not finite: leave such residues out with res_mask")
    if lengths is not None and "res_mask" not in given:
        inside = torch.arange(length) < torch.tensor(list(lengths))[:, None]
        given["res_mask"] = inside.to(device)

    position = torch.arange(length, device=device).expand(size, length)
    res_mask = given.get("res_mask", torch.ones(size, length, device=device)).float()
    diffuse_mask = given.get("diffuse_mask", torch.ones_like(res_mask)).float()
    _refuse_incomplete(res_mask, diffuse_mask, given)
    chain_idx = given.get("chain_idx", torch.ones_like(position)).long()
    file_idx = given.get("res_idx", position + 1).long()
    bond = (chain_idx[:, 1:] == chain_idx[:, :-1]) & (file_idx[:, 1:] == file_idx[:, :-1] + 1) & (res_mask[:, 1:] > 0)

    draws = Draws(_seeds(seed, size), res_mask)
    # All noise is drawn whatever the caller gives: giving one kind leaves the others as they would have been.
    gaussian, quaternion, uniform = draws.normal(3), draws.normal(4), draws.uniform()
    quaternion[res_mask == 0] = quaternion.new_tensor([1.0, 0.0, 0.0, 0.0])
    noise = {
        "trans_0": translations.centred_noise(gaussian, res_mask, sampler.translation_noise),
        "rotmats_0": from_gaussian_quaternions(quaternion),
        "aatypes_0": tokens.noise_tokens(sampler.tokens, uniform),
    } | given

    moves = (res_mask * diffuse_mask).bool()
    nothing = torch.zeros_like(moves)
    present = res_mask[..., None]
    start = Start(
        frames=Frames(noise["rotmats_0"].float(), noise["trans_0"].float()),
        tokens=noise["aatypes_0"].long(),
        given_frames=Frames(
            given.get("rotmats_1", identity(size, length, device=device)).float(),
            given.get("trans_1", torch.zeros(size, length, 3, device=device)).float() * present,
        ),
        given_tokens=given.get("aatypes_1", torch.zeros_like(position)).long(),
        res_mask=res_mask,
        diffuse_mask=diffuse_mask,
        chain_idx=chain_idx,
        res_idx=position if sampler.first_residue == 0 else file_idx,
        peptide_bond=torch.nn.functional.pad(bond, (0, 1)),
        moves=moves,
        frames_move=nothing if task.gives_frames else moves,
        tokens_move=nothing if task.gives_tokens else moves,
        draws=draws,
    )
    start.frames, start.tokens = start.keep_given(start.frames, start.tokens)
    return start


def task_of(name: str | Task) -> Task:
    try:
        return Task(name)
    except ValueError:
        known = ", ".join(task.value for task in Task)
        raise UserError(f"task={name} is not a task: use one of {known}") from None


def sampler_of(name: str | SamplerSettings) -> SamplerSettings:
    if isinstance(name, SamplerSettings):
        return name
    if name not in SAMPLERS:
        raise UserError(f"sampler={name} is not a sampler: use one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def refuse_without_head(task: Task, told: str | None = None) -> None:
    """Raises UserError for a task that a model without a sequence head cannot do. told: how the user put it."""
    if task.gives_frames:
        raise UserError(
            f"{told or f'task={task.value}'}: the model has no sequence head (model/head=none), so it designs no"
            " sequence: use one that has, or another task"
        )


def _shape(given: dict[str, Tensor], lengths: Sequence[int] | None) -> tuple[int, int]:
    """(B, N), the same for all tensors. Raises UserError where they differ or nothing tells."""
    shapes = {"lengths": (len(lengths), max(lengths, default=0))} if lengths is not None else {}
    for name, value in given.items():
        trailing = _TRAILING.get(name, ())
        if tuple(value.shape[2:]) != trailing or value.dim() != 2 + len(trailing):
            wanted = ", ".join(map(str, ("B", "N", *trailing)))
            raise UserError(f"{name} has shape {list(value.shape)}: wanted [{wanted}]")
        shapes[name] = tuple(value.shape[:2])
    if not shapes:
        raise UserError("nothing says how long the designs are: give lengths, or noise, or a protein")
    if len(set(shapes.values())) > 1:
        raise UserError(f"tensors disagree on [B, N]: {', '.join(f'{k} {list(v)}' for k, v in shapes.items())}")
    size, length = next(iter(shapes.values()))
    if size < 1 or length < 1 or (lengths is not None and min(lengths) < 1):
        raise UserError("a design needs at least one residue: lengths and tensors must not be empty")
    for name in ("aatypes_0", "aatypes_1"):
        if name in given and not ((given[name] >= 0) & (given[name] < NUM_TOKENS)).all():
            raise UserError(f"{name} holds values outside 0..{NUM_TOKENS - 1}")
    return size, length


def _refuse_incomplete(res_mask: Tensor, diffuse_mask: Tensor, given: dict[str, Tensor]) -> None:
    if not (res_mask > 0).any(-1).all():
        raise UserError("res_mask leaves a design without any residue: each needs at least one")
    absent = [name for name in ("trans_1", "rotmats_1", "aatypes_1") if name not in given]
    if absent and ((res_mask > 0) & (diffuse_mask == 0)).any():
        raise UserError(f"diffuse_mask keeps residues as they are, but nothing says how: give {' and '.join(absent)}")


def _seeds(seed: int | Sequence[int], size: int) -> list[int]:
    """One seed a design; a single one is counted on from."""
    if isinstance(seed, Integral):
        return [int(seed) + index for index in range(size)]
    if len(seed) != size:
        raise UserError(f"seed: {len(seed)} seeds for {size} designs; give one a design, or a single one")
    return list(seed)
