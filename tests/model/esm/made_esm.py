"""Tiny language models with random weights, as folders laid out like those of the Hugging Face hub."""

import json
from pathlib import Path

import torch

from tests.factories import perturb

VOCABULARY = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>"]
"""That of ESM-2."""


def write_esm(folder: Path, layers: int = 2, width: int = 16, heads: int = 2, seed: int = 0, **save) -> Path:
    """An ESM-2 in `folder`, nothing in it trivial: config.json, vocab.txt, tokenizer_config.json, model.safetensors.

    save: for `save_pretrained`, as in `safe_serialization=False`.
    """
    from transformers import EsmConfig, EsmForMaskedLM

    config = EsmConfig(
        vocab_size=len(VOCABULARY),
        mask_token_id=VOCABULARY.index("<mask>"),
        pad_token_id=VOCABULARY.index("<pad>"),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        layer_norm_eps=1e-5,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    torch.manual_seed(seed)
    model = perturb(EsmForMaskedLM(config), seed, scale=0.3)
    model.save_pretrained(folder, **save)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))
    return folder


def hugging_face(folder: Path):
    """The model of a folder as Hugging Face loads and runs it, with attention maps: the judge of ours."""
    from transformers import EsmModel

    return EsmModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
