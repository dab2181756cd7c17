"""What a plug-in is, a model that gives sequences for backbones or folds them, and which of them take part."""

from __future__ import annotations

import hashlib
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from app.devices import choose
from app.errors import UserError
from app.evaluation.refold.registry import FOLDERS, INVERSE_FOLDERS, Wanted, option
from app.evaluation.refold.settings import RefoldSettings

Chains = tuple[str, ...]
"""A sequence to be folded: one-letter codes, chain by chain."""


@dataclass(frozen=True)
class Backbone:
    """A design as inverse folding sees it. N residues."""

    atoms: Tensor  # [N, 4, 3] float32 N, CA, C and O, angstrom
    numbers: Tensor  # [N] int64, increasing within a chain
    chains: Tensor  # [N] int64
    sequence: str  # the design's own, N letters, X where there is none
    seed: int


@dataclass(frozen=True)
class Redesign:
    """What inverse folding says of a backbone."""

    sequences: tuple[str, ...]  # N letters each
    nll: float | None  # of the design's own sequence, nats a residue; None where it is not known at a residue


@dataclass(frozen=True)
class Folded:
    """A sequence of N residues as it was folded."""

    backbone: Tensor  # [N, 3, 3] float32 N, CA and C, angstrom
    plddt: Tensor  # [N] float32 of CA, 0 to 100


class Plugin(ABC):
    """A model and where its weights are. Nothing is loaded before it is needed; nothing is ever downloaded."""

    name: ClassVar[str]  # in the registry

    def __init__(self, weights: Path, device: torch.device):
        self.weights, self.device = weights, device

    @abstractmethod
    def check(self) -> None:
        """Raises UserError where these weights cannot be used, with the cure. Nothing large is read."""

    @property
    @abstractmethod
    def _model(self) -> nn.Module:
        """On the device, made when it is first asked for. Raises UserError where the weights do not fit."""

    @abstractmethod
    def files(self) -> list[Path]:
        """All that results depend on."""

    def fault(self) -> str | None:
        """Why these weights cannot be used; None where they look right."""
        try:
            self.check()
        except UserError as error:
            return str(error)
        return None

    def load(self) -> None:
        """Bring the weights to the device, unless they are there. Raises UserError where they do not fit."""
        self._model  # noqa: B018

    @property
    def sha256(self) -> str:
        """Of the files' contents, in order. Raises OSError where one cannot be read."""
        states = ((file, file.stat()) for file in self.files())
        return hashlib.sha256(b"".join(_digest(file, at.st_size, at.st_mtime_ns) for file, at in states)).hexdigest()


class InverseFolder(Plugin):
    """Gives sequences for backbones."""

    @abstractmethod
    def redesign(self, backbones: Sequence[Backbone], count: int, temperature: float) -> list[Redesign]:
        """`count` sequences of each backbone, which depend on it and its seed, and not on the others."""


class Folder(Plugin):
    """Folds sequences."""

    @abstractmethod
    def fold(self, sequences: Sequence[Chains]) -> list[Folded]:
        """Each of the sequences, all of which are of the same length and chains of the same lengths."""


@dataclass(frozen=True)
class Chosen:
    """The plug-ins that take part; where there is none, the reason."""

    settings: RefoldSettings
    inverse: InverseFolder | str
    folder: Folder | str

    def why_not(self) -> str | None:
        """Without folding inverse folding can still say how likely a sequence is; without both there is nothing."""
        if isinstance(self.folder, str) and isinstance(self.inverse, str):
            return f"{self.folder}; {self.inverse}"
        return None

    def provenance(self) -> dict[str, Any]:
        taking_part = [one for one in (self.inverse, self.folder) if isinstance(one, Plugin)]
        return self.settings.model_dump(mode="json", exclude={"weights", "cache"}) | {
            one.name: {"weights": str(one.weights), "sha256": one.sha256} for one in taking_part
        }


def chosen(settings: RefoldSettings) -> Chosen:
    """The plug-ins that the settings give weights for. Raises UserError for a device that is not there."""
    device = choose(settings.device, "--device")
    return Chosen(settings, _one_of(INVERSE_FOLDERS, settings, device), _one_of(FOLDERS, settings, device))


def _one_of(kind: Mapping[str, Wanted], settings: RefoldSettings, device: torch.device) -> Any:
    names = [name for name in kind if name in settings.weights]
    if not names:
        wanted = " or ".join(f"{option(name)} {one.metavar} ({one.what})" for name, one in kind.items())
        return f"no weights, give {wanted}"
    name, weights = names[0], settings.weights[names[0]].expanduser()
    plugin = _class_of(name)(weights, device)
    fault = plugin.fault() or _unreadable(plugin.files())
    return plugin if fault is None else f"{option(name)} {weights}: {fault}"


def _unreadable(files: Sequence[Path]) -> str | None:
    closed = [file.name for file in files if not os.access(file, os.R_OK)]
    return f"{closed[0]} may not be read: see to its rights" if closed else None


def _class_of(name: str) -> type[Plugin]:
    """name: one of the registry's, which the settings hold to it: a module of this package."""
    return importlib.import_module(f"{__package__}.{name}").PLUGIN


@lru_cache
def _digest(file: Path, size: int, changed: int) -> bytes:
    """SHA-256 of a file, which is read again when its size or time of change are others."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
