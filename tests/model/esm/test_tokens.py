"""Residues to tokens and back."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from app.chem.residues import AATYPES, AATYPES_WITH_X, MASK_TOKEN
from app.errors import UserError
from app.model.esm.tokens import Alphabet, lay_out
from tests.factories import noisy_batch, padded, rows
from tests.memory import NoReadBack
from tests.model.esm.made_esm import VOCABULARY

ALPHABET = Alphabet.of(VOCABULARY, "here")


def batch(length: int = 5, **fields):
    """One chain of designed alanines that are all there, with changes."""
    made = rows(noisy_batch(2, length), 0)
    plain = {
        "res_mask": torch.ones(1, length),
        "diffuse_mask": torch.ones(1, length),
        "chain_idx": torch.ones(1, length),
        "res_idx": 1 + torch.arange(length)[None],
        "aatypes_t": torch.zeros(1, length),
    }
    return dataclasses.replace(made, **plain | {name: torch.tensor([value]) for name, value in fields.items()})


def tokenize(made, alphabet: Alphabet, linker: int) -> SimpleNamespace:
    layout = lay_out(made, alphabet, linker)
    return SimpleNamespace(ids=layout.read(made), place=layout.place, layout=layout)


def read(tokens, row: int = 0) -> str:
    """What the language model is given, with signs for special tokens."""
    signs = {"<cls>": "^", "<eos>": "$", "<mask>": "_", "<pad>": ".", ".": "?"}
    return "".join(signs.get(VOCABULARY[index], VOCABULARY[index]) for index in tokens.ids[row])


def test_every_residue_type_is_itself():
    assert read(tokenize(batch(20, aatypes_t=list(range(20))), ALPHABET, 3)) == f"^{AATYPES}$"
    assert [VOCABULARY[index] for index in ALPHABET.residues] == list(AATYPES_WITH_X)


def test_they_are_those_of_the_tokenizer(esm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(esm)
    assert tokenizer(AATYPES + "X")["input_ids"] == [ALPHABET.start, *ALPHABET.residues.tolist(), ALPHABET.end]
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (ALPHABET.mask, ALPHABET.padding)


def test_token_20_is_masked_where_it_is_designed_and_unknown_where_it_is_given():
    tokens = [3, MASK_TOKEN, MASK_TOKEN, 5, MASK_TOKEN]
    given = batch(aatypes_t=tokens, diffuse_mask=[1.0, 1.0, 0.0, 0.0, 1.0])
    assert read(tokenize(given, ALPHABET, 3)) == "^D_XQ_$"


def test_chains_are_joined_by_glycines_and_found_again():
    tokens = tokenize(batch(6, chain_idx=[1, 1, 2, 3, 3, 3], res_idx=[1, 2, 1, 1, 2, 3]), ALPHABET, 4)
    assert read(tokens) == "^AAGGGGAGGGGAAA$"
    assert tokens.place.tolist() == [[1, 2, 7, 12, 13, 14]]


def test_missing_residues_are_masked_up_to_the_linkers_length():
    tokens = tokenize(batch(res_idx=[1, 2, 5, 6, 99]), ALPHABET, 4)
    assert read(tokens) == "^AA__AA____A$"
    assert tokens.place.tolist() == [[1, 2, 5, 6, 11]]


def test_absent_residues_inside_are_missing_ones():
    tokens = tokenize(batch(res_mask=[1.0, 0.0, 0.0, 1.0, 1.0], aatypes_t=[1, 7, 7, 1, 1]), ALPHABET, 9)
    assert read(tokens) == "^R__RR$"
    assert tokens.place.tolist() == [[1, 0, 0, 4, 5]]


def test_numbers_that_do_not_rise_leave_no_gap():
    assert read(tokenize(batch(res_idx=[7, 7, 3, 4, 5]), ALPHABET, 9)) == "^AAAAA$"


def test_a_protein_without_residues_and_a_longer_one():
    both = noisy_batch(2, 4, given=0, missing=0)
    both.res_mask[0] = 0
    tokens = tokenize(both, ALPHABET, 3)
    assert read(tokens) == "^$" + "." * (tokens.ids.shape[1] - 2)
    assert tokens.place[0].tolist() == [0] * 4


@pytest.mark.parametrize("extra", [1, 6])
def test_padding_changes_nothing(extra):
    short = tokenize(noisy_batch(), ALPHABET, 25)
    long = tokenize(padded(noisy_batch(), extra), ALPHABET, 25)
    assert torch.equal(long.ids, short.ids)
    assert torch.equal(long.place[:, :12], short.place)
    assert not long.place[:, 12:].any()


def test_residues_stand_where_they_are_said_to():
    made = noisy_batch(size=4)
    tokens = tokenize(made, ALPHABET, 25)
    here = made.res_mask.bool()
    letters = torch.where((made.aatypes_t == 20) & (made.diffuse_mask > 0), ALPHABET.mask,
                          ALPHABET.residues[made.aatypes_t])  # fmt: skip
    assert torch.equal(tokens.ids.gather(1, tokens.place)[here], letters[here])


def test_other_vocabularies_are_refused():
    with pytest.raises(UserError, match=r"here: vocab\.txt.*lacks <mask>, W"):
        Alphabet.of([token for token in VOCABULARY if token not in ("W", "<mask>")], "here")


def test_one_layout_serves_all_steps_of_a_design():
    made = batch(6, chain_idx=[1, 1, 2, 2, 2, 2], res_idx=[1, 2, 1, 2, 5, 6])
    layout = lay_out(made, ALPHABET, 2)
    for step in range(3):
        later = dataclasses.replace(made, aatypes_t=torch.randint(0, 21, (1, 6)), trans_t=made.trans_t + step)
        assert torch.equal(layout.read(later), tokenize(later, ALPHABET, 2).ids)


def test_packed_tokens_are_all_but_padding_in_their_order():
    made = noisy_batch(size=4)
    made.res_mask[0, 3:] = 0
    tokens = tokenize(made, ALPHABET, 25)
    flat, (starts, lengths) = tokens.ids.flatten(), dataclasses.astuple(tokens.layout.sequences)
    assert torch.equal(flat[tokens.layout.packed], flat[flat != ALPHABET.padding])
    assert starts.diff().tolist() == list(lengths) == (tokens.ids != ALPHABET.padding).sum(-1).tolist()
    assert (flat[tokens.layout.packed][starts[:-1].long()] == ALPHABET.start).all()


def test_reading_tokens_reads_nothing_back():
    made = noisy_batch(size=2)
    layout = lay_out(made, ALPHABET, 25)
    with NoReadBack():
        assert layout.read(made).shape == layout.fixed.shape
