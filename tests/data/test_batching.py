"""Batches: padding, membership, budgets, and the same number of them on every rank and in every epoch."""

import numpy as np
import pytest
import torch

from app.data.batching import LengthBatchSampler, collate
from app.data.loader_settings import LoaderSettings
from app.data.steps import StepSettings
from app.errors import UserError

LENGTHS = np.random.default_rng(1).integers(40, 130, 150)


def everything(_epoch, _seed):
    return range(len(LENGTHS))


def one_of_each_pair(epoch, seed):
    return np.arange(0, len(LENGTHS), 2) + np.random.default_rng((seed, epoch)).integers(0, 2, len(LENGTHS) // 2)


def sampler(lengths=LENGTHS, draw=everything, rank=0, world_size=1, **settings):
    settings = {"max_batch_size": 4, "max_residues_squared": 30_000, "seed": 3, **settings}
    return LengthBatchSampler(lengths, draw, LoaderSettings(**settings), rank, world_size)


def example(length, name="x"):
    return {
        "name": name,
        "res_mask": torch.ones(length),
        "diffuse_mask": torch.ones(length),
        "plddt_mask": torch.ones(length),
        "chain_idx": torch.ones(length, dtype=torch.int64),
        "res_idx": torch.arange(1, length + 1),
        "trans_1": torch.randn(length, 3),
        "rotmats_1": torch.linalg.qr(torch.randn(length, 3, 3))[0],
        "aatypes_1": torch.randint(0, 20, (length,)),
    }


def test_collate_pads_with_values_that_stay_finite():
    examples = [example(3, "a"), example(5, "b")]
    batch = collate(examples)
    assert batch.names == ["a", "b"]
    for key in ("res_mask", "trans_1", "rotmats_1", "aatypes_1", "res_idx", "chain_idx", "plddt_mask", "diffuse_mask"):
        padded = getattr(batch, key)
        assert padded.shape[:2] == (2, 5)
        for row, one in zip(padded, examples, strict=True):
            assert torch.equal(row[: len(one[key])], one[key])
        assert padded.dtype == (torch.int64 if key in ("aatypes_1", "res_idx", "chain_idx") else torch.float32)
    assert torch.equal(batch.rotmats_1[0, 3:], torch.eye(3).expand(2, 3, 3))
    assert batch.aatypes_1[0, 3:].tolist() == [20, 20]
    for key in ("res_mask", "diffuse_mask", "plddt_mask", "trans_1", "res_idx", "chain_idx"):
        assert not getattr(batch, key)[0, 3:].any()


@pytest.mark.parametrize("bucket", [1, 16, 1000])
def test_batches_keep_to_the_budgets_and_use_every_example_once(bucket):
    batches = sampler(bucket=bucket).batches(0)
    assert sorted(index for batch in batches for index in batch) == list(range(len(LENGTHS)))
    for batch in batches:
        lengths = LENGTHS[batch]
        assert len(set((lengths - 1) // bucket)) == 1
        assert len(batch) <= 4
        assert len(batch) == 1 or len(batch) * lengths.max() ** 2 <= 30_000


def test_one_example_is_let_through_whatever_its_length():
    assert all(len(batch) == 1 for batch in sampler(max_residues_squared=1).batches(0))


def test_order_depends_on_seed_and_epoch_only():
    assert sampler().batches(4) == sampler().batches(4)
    assert sampler().batches(4) != sampler().batches(5)
    assert sampler().batches(4) != sampler(seed=4).batches(4)
    used = sampler()
    for epoch in range(3):
        used.batches(epoch)
    assert used.batches(4) == sampler().batches(4)


@pytest.mark.parametrize("draw", [everything, one_of_each_pair])
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_every_rank_and_epoch_has_as_many_batches(draw, world_size):
    ranks = [sampler(draw=draw, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    for epoch in range(4):
        lists = [rank.batches(epoch) for rank in ranks]
        assert {len(batches) for batches in lists} == {len(ranks[0])}
        together = [tuple(batch) for batches in lists for batch in batches]
        repeated = len(together) - len(set(together))
        drawn = set(draw(epoch, 3))
        assert {index for batch in together for index in batch} <= drawn
        if draw is everything:
            assert {index for batch in together for index in batch} == drawn
            assert repeated < world_size


def drawn_set(seed):
    """(lengths, draw, settings, ranks) at random: one example to many, of one length or of wildly uneven ones, all of
    them in each epoch or more in some than in others."""
    random = np.random.default_rng(seed)
    size = int(random.choice([1, 2, 3, 10, 200]))
    lengths = np.concatenate([random.choice([60, 61, 2000], size), random.integers(1, 600, size)])[-size:]
    most = int(random.integers(1, size + 1))

    def some(epoch, own_seed):
        source = np.random.default_rng((own_seed, epoch))
        return source.choice(size, int(source.integers(1, most + 1)), replace=False)

    settings = LoaderSettings(
        max_batch_size=int(random.choice([1, 3, 64])),
        max_residues_squared=int(random.choice([1, 50_000, 10**7])),
        bucket=int(random.choice([1, 16, 1000])),
        seed=seed,
    )
    draw = some if seed % 2 else lambda *_: np.arange(size)
    return lengths, draw, settings, int(random.choice([1, 2, 5, 16]))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_data_every_rank_has_as_many_batches_and_none_is_empty(seed):
    lengths, draw, settings, world_size = drawn_set(seed)
    ranks = [LengthBatchSampler(lengths, draw, settings, rank, world_size) for rank in range(world_size)]
    assert {len(one) for one in ranks} == {len(ranks[0])} and len(ranks[0]) > 0
    for epoch in range(3):
        shares = [one.batches(epoch) for one in ranks]
        assert {len(share) for share in shares} == {len(ranks[0])}
        batches = [batch for share in shares for batch in share]
        for batch in batches:
            own = lengths[batch]
            assert 1 <= len(batch) <= settings.max_batch_size and len({*((own - 1) // settings.bucket)}) == 1
            assert len(batch) == 1 or len(batch) * own.max() ** 2 <= settings.max_residues_squared
        seen, drawn = {index for batch in batches for index in batch}, {int(index) for index in draw(epoch, seed)}
        assert seen <= drawn
        if not seed % 2:
            assert seen == drawn, "nothing is left out where epochs are alike"
            assert len(batches) - len({tuple(batch) for batch in batches}) < world_size


def test_an_epoch_that_draws_nothing_is_refused_by_name():
    with pytest.raises(UserError, match="no usable example"):
        sampler(draw=lambda *_: [])


def test_fewer_batches_than_ranks():
    ranks = [sampler(lengths=[50, 60], draw=lambda *_: [0, 1], rank=rank, world_size=5) for rank in range(5)]
    assert [len(rank.batches(0)) for rank in ranks] == [1] * 5
    assert {rank.batches(0)[0][0] for rank in ranks} == {0, 1}


def test_the_next_step_begins_after_as_large_a_part_of_the_epoch():
    batches = LengthBatchSampler(
        [40] * 20, lambda *_: range(20), LoaderSettings(max_batch_size=2), steps=StepSettings(batches=4)
    )  # steps of 4, 4 and 2 batches
    assert [batches.next_step(0, done, 10) for done in range(1, 11)] == [4, 4, 4, 4, 8, 8, 8, 8, 10, 10]
    assert [batches.next_step(0, done, 3) for done in range(1, 4)] == [4, 8, 10]
    assert [batches.next_step(0, done, 1000) for done in (1, 400, 401, 801)] == [4, 4, 8, 10]


def test_fingerprint_tells_what_changes_the_batches():
    same = sampler().fingerprint()
    assert same == sampler().fingerprint() == sampler(num_workers=3).fingerprint()
    assert same == sampler(rank=1, world_size=1).fingerprint()
    others = [sampler(seed=4), sampler(bucket=2), sampler(lengths=LENGTHS + 1), sampler(world_size=2)]
    assert same not in [other.fingerprint() for other in others]


def test_nothing_to_train_on():
    with pytest.raises(UserError, match="no usable example"):
        sampler(lengths=[], draw=lambda *_: [])
