"""Tiny models with random weights in the published formats, and designs to refold."""

from pathlib import Path

import torch

from app.chem import atoms
from app.chem.residues import NUM_AATYPES, to_sequence
from app.evaluation.refold.mpnn.model import ProteinMPNN
from app.evaluation.refold.plugin import Backbone
from app.types import Protein
from tests.factories import generator, perturb

VOCABULARY = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>"]


def write_protein_mpnn(file: Path, seed: int = 0, **sizes) -> Path:
    """In the layout of v_48_020.pt."""
    model = tiny_mpnn(seed, **sizes)
    kept = {"num_edges": model.features.neighbours, "noise_level": 0.2, "model_state_dict": model.state_dict()}
    torch.save(kept, file)
    return file


def tiny_mpnn(seed: int = 0, width: int = 16, neighbours: int = 6, depth: int = 2) -> ProteinMPNN:
    torch.manual_seed(seed)
    model = ProteinMPNN(width, neighbours, encoder_depth=depth, decoder_depth=depth)
    return perturb(model, seed, scale=0.3).eval().requires_grad_(False)


def write_esmfold(folder: Path, seed: int = 0, **save) -> Path:
    """In the layout of facebook/esmfold_v1. save: options of `save_pretrained`, as in `safe_serialization=False`."""
    from transformers import EsmConfig, EsmForProteinFolding

    structure = {
        "sequence_dim": 16, "pairwise_dim": 8, "ipa_dim": 4, "resnet_dim": 8, "num_heads_ipa": 2, "num_qk_points": 2,
        "num_v_points": 2, "num_blocks": 2, "num_transition_layers": 1, "num_resnet_blocks": 1,
    }  # fmt: skip
    trunk = {
        "num_blocks": 1, "sequence_state_dim": 16, "pairwise_state_dim": 8, "sequence_head_width": 8,
        "pairwise_head_width": 4, "position_bins": 4, "max_recycles": 2, "chunk_size": 4, "structure_module": structure,
    }  # fmt: skip
    config = EsmConfig(
        vocab_size=len(VOCABULARY),
        mask_token_id=VOCABULARY.index("<mask>"),
        pad_token_id=VOCABULARY.index("<pad>"),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        position_embedding_type="rotary",
        token_dropout=True,
        is_folding_model=True,
        vocab_list=VOCABULARY,
        esmfold_config={"trunk": trunk, "lddt_head_hid_dim": 8, "fp16_esm": False},
    )
    torch.manual_seed(seed)
    model = perturb(EsmForProteinFolding(config).float(), seed, scale=0.3)
    model.save_pretrained(folder, **save)
    return folder


def protein(*lengths: int, seed: int = 0, name: str = "design") -> Protein:
    """Chains along random walks, with N, CA, C and O in about the right places, and a random sequence."""
    source = generator(seed)
    total = sum(lengths)
    steps = torch.nn.functional.normalize(torch.randn(total, 3, generator=source), dim=-1)
    ca = (3.8 * steps).cumsum(0)
    offsets = torch.tensor([[-1.0, 1.0, 0.3], [0.0, 0.0, 0.0], [1.2, 0.8, -0.4], [1.6, 1.8, 0.2]])
    coordinates = torch.zeros(total, atoms.NUM_ATOM37, 3)
    slots = [atoms.N, atoms.CA, atoms.C, atoms.O]
    coordinates[:, slots] = ca[:, None] + offsets + 0.3 * torch.randn(total, 4, 3, generator=source)
    mask = torch.zeros(total, atoms.NUM_ATOM37, dtype=torch.bool)
    mask[:, slots] = True
    return Protein(
        name=name,
        atom37=coordinates.numpy(),
        atom_mask=mask.numpy(),
        aatype=torch.randint(NUM_AATYPES, (total,), generator=source).numpy(),
        res_idx=torch.cat([torch.arange(1, length + 1) for length in lengths]).numpy(),
        chain_idx=torch.cat([torch.full((length,), index + 1) for index, length in enumerate(lengths)]).numpy(),
        chain_ids=tuple("ABCDEFGH"[: len(lengths)]),
        b_factors=torch.zeros(total).numpy(),
    )


def backbone(*lengths: int, seed: int = 0) -> Backbone:
    one = protein(*lengths, seed=seed)
    return Backbone(
        atoms=torch.from_numpy(one.atom37[:, [atoms.N, atoms.CA, atoms.C, atoms.O]]),
        numbers=torch.from_numpy(one.res_idx),
        chains=torch.from_numpy(one.chain_idx),
        sequence=to_sequence(one.aatype),
        seed=seed,
    )
