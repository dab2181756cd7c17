"""What train.py says to expect at its start."""

import pytest

import train
from app.data.loader_settings import LoaderSettings
from app.training import estimate
from tests.estimate.measured import recipe_of
from tests.training import runs

GIGABYTE = 2**30


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_batch_size": 4, "max_residues_squared": 10**9}, {(4, 30), (1, 100)}),
        ({"max_batch_size": 64, "max_residues_squared": 4000}, {(4, 30), (1, 100)}),
        ({"max_batch_size": 2, "max_residues_squared": 10**9, "bucket": 100}, {(2, 100)}),
        ({"max_batch_size": 9, "max_residues_squared": 10**9}, {(9, 30), (1, 100)}),
    ],
)
def test_the_largest_batches_are_among_those_looked_at(settings, expected):
    lengths = [30] * 9 + [8] * 3 + [100]
    assert set(estimate.largest_batches(lengths, LoaderSettings(**settings))) == expected


def test_a_run_says_what_to_expect_of_its_largest_batch(tmp_path, capsys):
    train.main(runs.arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'run'}"))
    said = capsys.readouterr().out
    assert "expected of the largest batch, 2 x 10 residues: " in said
    assert "will not fit" not in said


def test_a_batch_that_will_not_fit_is_warned_of_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "memory_of", lambda device: 0.75 * GIGABYTE + 1000)
    train.main(runs.arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'run'}"))
    said = capsys.readouterr().out
    assert (
        "warning: a batch of 2 x 10 residues, which these data give, will not fit into memory: lower data.loader."
        in said
    )
    assert said.index("will not fit") < said.index("done at step 1")


def test_one_chain_too_long_has_another_cure(monkeypatch):
    monkeypatch.setattr(estimate, "memory_of", lambda device: 4 * GIGABYTE)
    lines = estimate.expectation(recipe_of("recipe=multiflow_legacy"), [500], LoaderSettings(), "cpu")
    assert (
        "a batch of 1 x 500 residues, which these data give, will not fit into memory: leave out the longest chains"
        in lines[1]
    )


def test_an_estimate_that_fails_costs_no_run(monkeypatch):
    def fails(*_):
        raise RuntimeError("no such kernel\nmore")

    monkeypatch.setattr(estimate, "needs_of", fails)
    lines = estimate.expectation(recipe_of("recipe=tiny"), [50], LoaderSettings(), "cpu")
    assert lines == ["no estimate of the memory that a step takes (RuntimeError: no such kernel more)"]
