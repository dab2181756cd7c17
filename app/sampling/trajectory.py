"""What a sampling run leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import Tensor

from app.devices import fetch, host_buffer, wait_for
from app.geometry.backbone import to_atom37
from app.types import Frames


@dataclass
class Trajectory:
    """The way from noise to designs: B designs of N residues, T model calls.

    `path` is where the sampler was: T + 1 points, the noise first and the designs last. `clean` is what the model took
    for the final protein at each call, T points; its last is the last of the path. A run that was told to keep no path
    holds only the last point of each (T = 0 in `path`, 1 in `clean`). Frames are kept and atoms made when asked for,
    since 37 atoms take nine times the memory.
    """

    path_trans: Tensor  # [B, T + 1, N, 3] angstrom
    path_rotmats: Tensor  # [B, T + 1, N, 3, 3]
    path_aatypes: Tensor  # [B, T + 1, N] int64
    clean_trans: Tensor  # [B, T, N, 3] angstrom
    clean_rotmats: Tensor  # [B, T, N, 3, 3]
    clean_aatypes: Tensor  # [B, T, N] int64
    path_certainty: Tensor  # [B, T + 1, N] float in [0, 1], see `app.sampling.certainty`
    clean_certainty: Tensor  # [B, T, N] float in [0, 1]
    peptide_bond: Tensor  # [B, N] bool, the next residue is bonded to this one
    res_mask: Tensor  # [B, N] float

    @property
    def path_atom37(self) -> Tensor:
        """[B, T + 1, N, 37, 3] angstrom: N, CA, C, CB, O; all else 0."""
        return self._atoms(self.path_trans, self.path_rotmats)

    @property
    def clean_atom37(self) -> Tensor:
        """[B, T, N, 37, 3] angstrom: N, CA, C, CB, O; all else 0."""
        return self._atoms(self.clean_trans, self.clean_rotmats)

    @property
    def final_atom37(self) -> Tensor:
        """[B, N, 37, 3] angstrom: the designs."""
        return self._atoms(self.path_trans[:, -1:], self.path_rotmats[:, -1:])[:, 0]

    @property
    def final_aatypes(self) -> Tensor:
        """[B, N] int64: the designed sequences."""
        return self.path_aatypes[:, -1]

    @property
    def final_certainty(self) -> Tensor:
        """[B, N] float in [0, 1]: of each token of the designs."""
        return self.path_certainty[:, -1]

    def one(self, index: int) -> "Trajectory":
        """That of one design of the batch, B = 1."""
        return Trajectory(*(getattr(self, each.name)[index : index + 1] for each in fields(self)))

    def _atoms(self, trans: Tensor, rotmats: Tensor) -> Tensor:
        bond = self.peptide_bond[:, None].expand(trans.shape[:3])
        return to_atom37(Frames(rotmats, trans), bond) * self.res_mask[:, None, :, None, None]


class Recorder:
    """Collects points (trans, rotmats, tokens, certainty), all of them or only the latest.

    All of them go to the host as they come, into memory taken at the start: what the device holds does not grow with
    the way, and on an NVIDIA GPU nobody waits for the copies.
    """

    def __init__(self, keep: bool, points: int):
        """points: how many are to come."""
        self.keep, self.points, self.count = keep, points, 0
        self.latest: Sequence[Tensor] = ()
        self.buffers: list[Tensor] = []

    def add(self, trans: Tensor, rotmats: Tensor, tokens: Tensor, certainty: Tensor) -> None:
        self.latest = trans, rotmats, tokens, certainty
        if not self.keep:
            return
        if not self.buffers:
            self.buffers = [host_buffer((self.points, *tensor.shape), tensor) for tensor in self.latest]
        for tensor, buffer in zip(self.latest, self.buffers, strict=True):
            fetch(tensor, buffer[self.count])
        self.count += 1

    def stacked(self) -> list[Tensor]:
        """trans [B, T, N, 3], rotmats [B, T, N, 3, 3], tokens and certainty [B, T, N], on the CPU."""
        if not self.keep:
            return [tensor.cpu()[:, None] for tensor in self.latest]
        wait_for(self.latest[0].device)
        return [buffer.movedim(0, 1) for buffer in self.buffers]
