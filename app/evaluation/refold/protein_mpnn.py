"""ProteinMPNN (Dauparas et al. 2022) as a plug-in, with the published weights of models of whole backbones."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.config.keys import one_line
from app.errors import UserError
from app.evaluation.refold.mpnn.model import LETTERS, ProteinMPNN
from app.evaluation.refold.plugin import Backbone, InverseFolder, Redesign

_UNKNOWN = LETTERS.index("X")
_TAKE = "take one of its vanilla or soluble weights, such as v_48_020.pt"
_LARGEST = {"width": 1024, "neighbours": 1024, "encoder_depth": 64, "decoder_depth": 64}


class ProteinMpnn(InverseFolder):
    name = "protein_mpnn"

    def check(self) -> None:
        self.load()  # a few megabytes

    def files(self) -> list[Path]:
        return [self.weights]

    @torch.inference_mode()
    def redesign(self, backbones: Sequence[Backbone], count: int, temperature: float) -> list[Redesign]:
        """Residues are drawn in a random order, one for each sequence. The likelihood is that of a single order."""
        lengths = [len(one.sequence) for one in backbones]
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        coordinates, numbers, chains = (
            pad_sequence([getattr(one, name) for one in backbones], batch_first=True).to(self.device)
            for name in ("atoms", "numbers", "chains")
        )
        encoded = self._model.encode(coordinates, mask.to(self.device), numbers, chains)
        draws = [_draws(one.seed, length, count, max(lengths)) for one, length in zip(backbones, lengths, strict=True)]
        orders = torch.stack([order for order, _ in draws]).to(self.device)  # [B, 1 + count, N]
        noise = torch.cat([noise for _, noise in draws]).to(self.device)
        own = pad_sequence([_tokens(one.sequence) for one in backbones], batch_first=True, padding_value=_UNKNOWN)
        said = self._model(encoded, own.to(self.device), orders[:, 0]).cpu()
        drawn, _ = self._model.sample(encoded.repeated(count), orders[:, 1:].flatten(0, 1), noise, temperature)
        drawn = drawn.cpu().unflatten(0, (len(backbones), count))
        return [
            Redesign(tuple(_letters(row[:length]) for row in rows), _likelihood(log_p, tokens))
            for rows, length, log_p, tokens in zip(drawn, lengths, said, own, strict=True)
        ]

    @cached_property
    def _model(self) -> ProteinMPNN:
        return read(self.weights).to(self.device)


PLUGIN = ProteinMpnn


def read(path: Path) -> ProteinMPNN:
    """The model that a checkpoint holds, in float32 on the CPU. Nothing in the file is executed.

    Raises UserError for a file that is missing, cannot be read, or holds something else.
    """
    checkpoint = _read(path)
    weights, neighbours = checkpoint.get("model_state_dict"), checkpoint.get("num_edges")
    if not isinstance(weights, dict) or not isinstance(neighbours, int):
        raise UserError(f"no checkpoint of ProteinMPNN (it lacks model_state_dict or num_edges): {_TAKE}")
    weights = {str(name): value for name, value in weights.items()}
    sizes = _sizes(weights) | {"neighbours": neighbours}
    if any(not 0 < sizes[name] <= largest for name, largest in _LARGEST.items()):
        raise UserError(f"no ProteinMPNN has these dimensions ({sizes}): {_TAKE}")
    with torch.device("meta"):
        model = ProteinMPNN(**sizes)
    wanted = model.state_dict()
    if odd := sorted(wanted.keys() ^ weights.keys()):
        told = "lacks" if odd[0] in wanted else "has"
        raise UserError(f"not a ProteinMPNN of whole backbones (it {told} {odd[0]}): {_TAKE}")
    for name, value in weights.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != wanted[name].shape:
            raise UserError(f"its weights at {name} are not {list(wanted[name].shape)} numbers: {_TAKE}")
    model.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _read(path: Path) -> dict:
    if not path.is_file():
        raise UserError("no such file: give the path of one")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch stumbles in many ways over a damaged file
        reason = one_line(error).partition(". ")[0][:120] or type(error).__name__
        raise UserError(f"cannot be read ({reason}), nothing in it was run: copy it again") from None
    return found if isinstance(found, dict) else {}


def _sizes(weights: dict[str, Tensor]) -> dict[str, int]:
    def depth(kind: str) -> int:
        found = (re.match(rf"{kind}_layers\.(\d+)\.", name) for name in weights)
        return len({match[1] for match in found if match})

    width = weights.get("W_e.bias")
    return {
        "width": width.numel() if isinstance(width, Tensor) else 0,
        "encoder_depth": depth("encoder"),
        "decoder_depth": depth("decoder"),
    }


def _draws(seed: int, length: int, count: int, padded: int) -> tuple[Tensor, Tensor]:
    """A sequence's randomness, which depends on its backbone's seed and its number alone: orders [1 + count, padded],
    padding last, of which the first is for the likelihood, and noise [count, padded, 20]."""
    source = torch.Generator().manual_seed(seed)
    orders = torch.arange(padded).repeat(1 + count, 1)
    noise = torch.zeros(count, padded, len(LETTERS) - 1)
    orders[0, :length] = torch.randperm(length, generator=source)
    for index in range(count):
        orders[1 + index, :length] = torch.randperm(length, generator=source)
        noise[index, :length] = -torch.empty(length, len(LETTERS) - 1).exponential_(generator=source).log()
    return orders, noise


def _tokens(sequence: str) -> Tensor:
    return torch.tensor([LETTERS.index(letter) for letter in sequence])


def _letters(tokens: Tensor) -> str:
    return "".join(LETTERS[token] for token in tokens.tolist())


def _likelihood(log_p: Tensor, tokens: Tensor) -> float | None:
    """Mean of -log P over the residues whose type is known, of [N, 21] and [N]."""
    known = tokens != _UNKNOWN
    if not known.any():
        return None
    return -float(log_p.gather(-1, tokens[:, None])[known].mean())
