"""Losses at fixed times and noise: functions of the weights and the example alone."""

import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from app.data.ledger import Ledger
from app.flow.interpolant import corrupt
from app.training import held_out_losses as module
from app.training.example_means import ExampleMeans
from app.training.held_out_losses import at, columns, held_out_losses, noised, over_times
from app.training.in_halves import measured_in_halves
from app.training.memory import Alone
from tests.factories import padded, protein_batch, tiny_module

TIMES = (0.2, 0.7)


def made(**sections):
    return tiny_module(**{"validation": {"times": TIMES}, "loss": {"auxiliary_weight": 1.0}} | sections)


def only(batch, *rows):
    return dataclasses.replace(batch.map(lambda x: x[list(rows)]), names=[batch.names[row] for row in rows])


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flow", [{}, {"batch_transport": False, "tokens": "uniform"}, {"separate_times": False}])
def test_an_examples_losses_do_not_depend_on_what_shares_its_batch(flow):
    model, batch = made(flow=flow), protein_batch(size=3, missing=4)
    together = held_out_losses(model, batch)
    assert together.keys() == set(columns(TIMES)) - set(module.NAMES.values())
    assert all(values.shape == (3,) and values.isfinite().all() for values in together.values())
    assert together[at("validation_loss", 0.2)].unique().numel() == 3
    turned = held_out_losses(model, only(batch, 2, 0, 1))
    close({name: values[[1, 2, 0]] for name, values in turned.items()}, together)
    for row in range(3):
        close(
            held_out_losses(model, only(batch, row)), {name: values[row : row + 1] for name, values in together.items()}
        )
    close(held_out_losses(model, padded(batch, 5)), together)


def test_nor_on_the_runs_seed_or_any_generator_and_none_is_touched():
    batch = protein_batch()
    one, other = made(seed=1), made(seed=1)
    other.recipe = other.recipe.model_copy(update={"seed": 99})
    first = held_out_losses(one, batch)
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    second = held_out_losses(other, batch)
    assert all(torch.equal(values, second[name]) for name, values in first.items())
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]


def test_names_and_times_tell_noises_apart():
    batch, flow = protein_batch(), made().recipe.flow
    noise = noised(batch, flow, 0.5)
    assert noise.r3_t.unique().tolist() == noise.so3_t.unique().tolist() == noise.cat_t.unique().tolist() == [0.5]
    again = noised(batch, flow, 0.5)
    assert all(torch.equal(getattr(noise, f), getattr(again, f)) for f in ("trans_t", "rotmats_t", "aatypes_t"))
    renamed = noised(dataclasses.replace(batch, names=["other", batch.names[1]]), flow, 0.5)
    assert not torch.equal(renamed.trans_t[0], noise.trans_t[0]) and torch.equal(renamed.trans_t[1], noise.trans_t[1])
    assert torch.equal(batch.aatypes_1, protein_batch().aatypes_1), "the clean batch stays"


def test_given_residues_and_padding_are_as_in_training():
    batch, flow = protein_batch(given=4, missing=3), made().recipe.flow
    found, trained = noised(batch, flow, 0.5), corrupt(batch, flow, torch.Generator().manual_seed(0))
    still = (batch.res_mask * batch.diffuse_mask) == 0
    for field in ("trans_t", "rotmats_t", "aatypes_t"):
        assert torch.equal(getattr(found, field)[still], getattr(trained, field)[still])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_model_sees_its_own_estimate_wherever_it_is_trained_to(share, monkeypatch):
    seen = []
    model = made(flow={"self_condition_share": share})
    losses = model.losses
    monkeypatch.setattr(model, "losses", lambda noisy: seen.append(noisy.trans_sc.abs().sum() > 0) or losses(noisy))
    held_out_losses(model, protein_batch())
    assert seen == [share > 0] * len(TIMES)


def test_the_mean_over_times():
    row = {at("validation_loss", 0.2): 1.0, at("validation_loss", 0.7): 2.0, "designs_bonds": 0.0}
    assert over_times(row, TIMES) == {"validation_loss": 1.5}
    assert columns(()) == ()


def test_each_example_counts_once_in_any_order():
    means = ExampleMeans(["a", "b"])
    means.update(["x", "y"], {"a": torch.tensor([1.0, 2.0])})
    means.update(["y", "z"], {"a": torch.tensor([2.0, 6.0])})
    means.update(["x"], {"b": torch.tensor([0.5])})
    assert means.compute() == {"a": (3.0, 3), "b": (0.5, 1)}
    means.reset()
    means.update([], {})
    assert means.compute() == {}
    means.update(["x", "y"], {"a": torch.tensor([1.0, torch.nan])})
    assert means.compute() == {"a": (torch.inf, 2)}, "a loss that is none is seen"


def test_an_example_without_anything_to_measure_is_left_out():
    means = ExampleMeans(["loss", "share"], may_lack=["share"])
    means.update(["x", "y"], {"loss": torch.tensor([1.0, 3.0]), "share": torch.tensor([torch.nan, 0.25])})
    assert means.compute() == {"loss": (2.0, 2), "share": (0.25, 1)}


def test_a_batch_that_does_not_fit_is_halved_and_an_example_that_does_not_is_left_out(caplog):
    batch, sizes = protein_batch(size=5), []

    def run(part):
        sizes.append(len(part.names))
        if len(part.names) > 2 or "chain3" in part.names:
            raise torch.OutOfMemoryError("out of memory")
        return {"a": part.trans_1[:, 0, 0]}

    ledger = Ledger()
    found = measured_in_halves(run, batch, ledger, Alone())
    assert [name for names, numbers in found if numbers for name in names] == ["chain0", "chain1", "chain2", "chain4"]
    assert [names for names, numbers in found if numbers is None] == [["chain3"]]
    assert torch.equal(torch.cat([numbers["a"] for _, numbers in found if numbers]), batch.trans_1[[0, 1, 2, 4], 0, 0])
    assert sizes == [5, 3, 2, 1, 2, 1, 1] and "leaves out chain3: out of memory at 12 residues" in caplog.text
    assert ledger.shapes == {(1, 12)}
    with pytest.raises(ZeroDivisionError):
        measured_in_halves(lambda part: 1 / 0, batch, Ledger(), Alone())


def test_a_shape_that_failed_is_halved_without_an_attempt():
    batch, sizes, ledger = protein_batch(size=5), [], Ledger()

    def run(part):
        sizes.append(len(part.names))
        if len(part.names) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return {"a": part.trans_1[:, 0, 0]}

    found = [measured_in_halves(run, batch, ledger, Alone()) for _ in range(2)]
    assert sizes == [5, 3, 2, 1, 2, 2, 1, 2]
    assert [names for names, _ in found[0]] == [names for names, _ in found[1]]


class Pair(Alone):
    """Of two ranks, in a thread each, that wait for each other."""

    def __init__(self):
        self.both, self.flags = threading.Barrier(2, timeout=20), []

    def anyones(self, flag):
        self.both.wait()
        self.flags.append(flag)
        self.both.wait()
        found = any(self.flags)
        if self.both.wait() == 0:
            self.flags.clear()
        self.both.wait()
        return found

    def attempt(self, work, device, failed):
        made = super().attempt(work, device, failed)
        return None if self.anyones(made is None) else made


def test_ranks_that_wait_for_each_other_halve_together():
    ranks, calls = Pair(), {7: 0, 2: 0}

    ledgers = {7: Ledger(), 2: Ledger()}

    def validate(size):
        def run(part):
            calls[size] += 1
            if len(part.names) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return {"a": part.trans_1[:, 0, 0]}

        found = measured_in_halves(run, protein_batch(size=size), ledgers[size], ranks)
        return [name for names, _ in found for name in names]

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(validate, (7, 2)))
    assert found == [[f"chain{number}" for number in range(7)], ["chain0", "chain1"]]
    assert calls[7] == calls[2] == 7, "of 7, 4, 2, 2, 3, 2, 1 examples, and of 2, 1, 1, 1, 1, 1, 1"
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(validate, (7, 2))) == found
    assert calls[7] == calls[2] == 7 + 4, "what one refuses both halve"


def test_ranks_leave_out_together_what_one_of_them_has_no_memory_for():
    ranks = Pair()

    def validate(size):
        def run(part):
            if size == 3 and "chain2" in part.names:
                raise torch.OutOfMemoryError("out of memory")
            return {"a": part.trans_1[:, 0, 0]}

        found = measured_in_halves(run, protein_batch(size=size), Ledger(), ranks)
        return {name: numbers is not None for names, numbers in found for name in names}

    with ThreadPoolExecutor(2) as threads:
        longer, shorter = threads.map(validate, (3, 2))
    assert longer == {"chain0": True, "chain1": True, "chain2": False}
    assert shorter == {"chain0": True, "chain1": False}
