"""The frozen language model: loaded where it is used, run once for the same tokens, never in a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.devices import NVIDIA, choose_dtype, full_precision
from app.errors import UserError
from app.model.esm import attention, backends
from app.model.esm.embedding import embedded
from app.model.esm.folder import NAME, EsmFolder, find, sha256, size_of
from app.model.esm.settings import WHERE, EsmSettings, EsmSize
from app.model.esm.tokens import Alphabet, TokenLayout, lay_out, outlined_layout
from app.types import NoisyBatch


@dataclass(frozen=True)
class Representations:
    """What the language model makes of a batch, without gradient. Rows of absent residues are to be masked.

    hidden: [layers + 1, B, N, width]: the embedded tokens, every layer, the last one normed.
    maps: [B, N, N, layers * heads], attention of residue i to residue j, or None.
    """

    hidden: Tensor
    maps: Tensor | None


@dataclass(frozen=True)
class _Loaded:
    model: nn.Module
    device: torch.device
    alphabet: Alphabet
    rescales: bool  # ESM-2's `token_dropout`


class LanguageModel:
    """A pretrained ESM-2. Not an nn.Module, so that it is part of no state dict, no optimizer and no `train()`.

    Weights are loaded on the first call, onto the device that it asks for; copies and pickles leave them behind.
    """

    def __init__(self, settings: EsmSettings):
        """Raises UserError for a name that has to tell the size and is neither published nor a folder of an ESM-2."""
        self.settings = settings
        self.size = settings.size or size_of(settings.name)
        self._expected: tuple[str, dict[str, str]] | None = None  # a checkpoint, and the identity that it tells
        self._sha256: str | None = None
        self._loaded: _Loaded | None = None
        self._last: tuple[TokenLayout, Tensor, Representations] | None = None
        self._outline: TokenLayout | None = None  # in place of every batch's own

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None, "_last": None}

    def check(self, device: torch.device) -> None:
        """Look for all that a call on that device needs, weights and their hash included, without loading them.

        Raises UserError: files missing, damaged or no ESM-2, weights that do not fit config.json, other weights than a
        checkpoint was trained with, a backend that is not installed, a precision that the device lacks.
        """
        dtype = self._dtype(device)
        backends.refuse_absent(self.settings.backend)
        folder, weights = self._found()
        _alphabet(folder)
        backends.fitted(self.settings.backend, folder, weights, device, dtype)
        self._recognise(weights)

    def identity(self) -> dict[str, str]:
        """What a checkpoint keeps in place of the weights: name and sha256. Raises UserError where there are none."""
        if self._sha256 is None:
            self._recognise(self._found()[1])
        return {"name": self.settings.name, "sha256": self._sha256}

    def expect(self, identity: Any, checkpoint: Path | str) -> None:
        """Accept the weights a checkpoint names and no others, now or when they are loaded. Raises UserError."""
        told = [identity.get(key) for key in ("name", "sha256")] if isinstance(identity, dict) else [None]
        if not all(isinstance(value, str) for value in told):
            raise UserError(f"{checkpoint}: damaged, it does not say with which language model it was trained")
        self._expected = str(checkpoint), identity
        self._refuse_other()

    def expect_like(self, other: "LanguageModel") -> None:
        """Accept what `other` accepts. Raises UserError."""
        if other._expected is not None:
            checkpoint, identity = other._expected
            self.expect(identity, checkpoint)

    @property
    def expected(self) -> dict[str, str] | None:
        """Name and sha256 of what a checkpoint was trained with; None in a new model."""
        return self._expected[1] if self._expected else None

    def release(self) -> None:
        """Forget what the last batch gave."""
        self._last = None

    @torch.compiler.disable  # tokens are read back from the device, and every set of lengths would compile anew
    def __call__(self, batch: NoisyBatch, device: torch.device, layout: TokenLayout | None = None) -> Representations:
        """Representations on `device`, those of the last call where the tokens are the same.

        layout: of `lay_out`, where the caller knows that the batch has the same residues as when it was made; nothing
        is read back from the device then, and nothing kept. Outside of autocast: the precision is the language model's
        own. Raises UserError as `check` does.
        """
        with torch.inference_mode(False), torch.no_grad(), full_precision(device):
            loaded = self._on(device)
            if layout is not None:
                return self._run(loaded, layout, layout.read(batch.to(device)))
            layout = self.lay_out(batch, device)
            ids = layout.read(batch.to(device))
            if self._last is None or not (self._last[0].same_as(layout) and self._last[1].equal(ids)):
                self._last = None
                self._last = layout, ids, self._run(loaded, layout, ids)
            return self._last[2]

    def outline(self, device: str, size: int = 1, length: int = 1) -> None:
        """Be a language model of the same size without its weights, for batches of single chains alone: for estimates,
        which look at no number. device: the type of that which it is estimated for. Raises UserError where the backend
        is not installed."""
        self.release()
        self._outline = outlined_layout(size, length)
        if self._loaded is None:
            narrow = torch.bfloat16 if device == NVIDIA else torch.float32
            dtype = narrow if self.settings.precision == "auto" else getattr(torch, self.settings.precision)
            model = backends.outlined(self.settings.backend, EsmSize(*self.size), dtype)
            self._loaded = _Loaded(model, self._outline.place.device, self._outline.alphabet, rescales=True)

    def lay_out(self, batch: NoisyBatch, device: torch.device) -> TokenLayout:
        """Where the batch's residues stand among the tokens, on `device`. Raises UserError as `check` does."""
        if self._outline is not None:
            return self._outline
        return lay_out(batch, self._on(device).alphabet, self.settings.linker).to(device)

    def _on(self, device: torch.device) -> _Loaded:
        if self._loaded is None or self._loaded.device != device:
            self._loaded = self._last = None  # two at a time may be more than fits
            with torch.inference_mode(False), torch.no_grad():
                self._loaded = self._load(device)
        return self._loaded

    def _run(self, loaded: _Loaded, layout: TokenLayout, ids: Tensor) -> Representations:
        table, alphabet = loaded.model.embeddings.word_embeddings, loaded.alphabet
        given = embedded(table, ids, alphabet.mask, alphabet.padding) if loaded.rescales else table(ids)
        if self.settings.backend == "faplm":
            place = layout.sequences.starts[:-1, None] + layout.place
            layers = attention.hidden_states(loaded.model, given, layout)
            return Representations(torch.stack([layer[place] for layer in layers]), None)
        out = loaded.model(
            inputs_embeds=given,
            attention_mask=ids != alphabet.padding,
            output_hidden_states=True,
            output_attentions=self.settings.with_maps,
            return_dict=True,
        )
        row, place = torch.arange(len(ids), device=loaded.device)[:, None], layout.place
        hidden = torch.stack([layer[row, place] for layer in out.hidden_states])
        if not self.settings.with_maps:
            return Representations(hidden, None)
        row, i, j = row[..., None], place[:, :, None], place[:, None]
        return Representations(hidden, torch.cat([layer.movedim(1, -1)[row, i, j] for layer in out.attentions], dim=-1))

    def _load(self, device: torch.device) -> _Loaded:
        dtype = self._dtype(device)
        folder, weights = self._found()
        self._recognise(weights)
        model = backends.build(self.settings.backend, folder, weights, device, dtype)
        return _Loaded(model, device, _alphabet(folder), folder.config.token_dropout)

    def _dtype(self, device: torch.device) -> torch.dtype:
        return choose_dtype(self.settings.precision, device, key=f"{WHERE}.precision")

    def _found(self) -> tuple[EsmFolder, dict[str, Tensor]]:
        folder = find(self.settings.name)
        if folder.config.size != self.size:
            found, wanted = (f"{size.layers} layers of width {size.width}" for size in (folder.config.size, self.size))
            source = f"{self._expected[0]} was trained" if self._expected else "the model was made"
            raise UserError(
                f"{NAME}={self.settings.name}: has {found}, {source} with a language model of {wanted}: name that"
                " one; another is for a new run with model/esm="
            )
        return folder, folder.weights()

    def _recognise(self, weights: dict[str, Tensor]) -> None:
        if self._sha256 is None:
            self._sha256 = sha256(weights)
        self._refuse_other()

    def _refuse_other(self) -> None:
        if self._expected is None or self._sha256 is None:
            return
        checkpoint, identity = self._expected
        if self._sha256 != identity["sha256"]:
            raise UserError(
                f"{checkpoint}: trained with the language model {identity['name']}, sha256 {identity['sha256'][:16]},"
                f" while {NAME}={self.settings.name} is {self._sha256[:16]} now: put the weights of then in its place"
            )


def _alphabet(folder: EsmFolder) -> Alphabet:
    return Alphabet.of(folder.vocabulary, where=f"{NAME}={folder.path}")
