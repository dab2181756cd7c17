"""Stopped anywhere, a run goes on as if nothing had happened; and what a resumed run may and may not change."""

import json
import os
import signal

import pytest
import torch

from app.errors import UserError
from app.training.run import train
from tests.training import runs
from tests.training.runs import EPOCH, Crash, arguments, assert_same_weights, rows

EVERY = ("trainer.log_every=3", "trainer.checkpoint_every=2")


def resume(out, *more):
    return train([f"resume={out / 'checkpoints' / 'last.ckpt'}", *more])


@pytest.mark.parametrize(
    ("limits", "every", "crashes"),
    [
        pytest.param(("trainer.max_steps=17",), 2, (3, EPOCH, 2 * EPOCH - 1), marks=pytest.mark.slow),
        (("trainer.max_steps=9", "trainer.accumulate=2"), 2, (5, EPOCH + 2, 2 * EPOCH)),
        pytest.param(("trainer.max_epochs=2", "trainer.accumulate=3"), 2, (6, EPOCH + 4), marks=pytest.mark.slow),
        (("trainer.max_epochs=3",), 1, (EPOCH, EPOCH + 1, 2 * EPOCH)),  # with checkpoints at the ends of epochs
    ],
)
def test_a_crashed_run_goes_on_as_if_it_had_not(tmp_path, monkeypatch, limits, every, crashes):
    """Weights, optimizer state and metrics.csv, over several crashes: in mid-epoch, at its first and its last batch."""
    made = arguments(tmp_path, *limits, f"trainer.checkpoint_every={every}", "trainer.log_every=3")
    train([*made, f"out={tmp_path / 'whole'}"])
    out = tmp_path / "crashed"
    for number, batch in enumerate(crashes):
        with monkeypatch.context() as patch, pytest.raises(Crash):
            runs.crash_at(batch, patch)
            resume(out) if number else train([*made, f"out={out}"])
    resume(out)
    assert_same_weights(tmp_path / "whole", out)
    assert rows(tmp_path / "whole") == rows(out)
    steps = [int(row["step"]) for row in rows(out)]
    assert steps == sorted(set(steps)) and steps[:3] == [3, 6, 9][: len(steps)]


@pytest.mark.parametrize("shorter", [(4, 11), pytest.param((EPOCH,), marks=pytest.mark.slow)])
def test_a_prolonged_run_is_the_one_that_was_longer_from_the_start(tmp_path, shorter):
    train(arguments(tmp_path, *EVERY, "trainer.max_steps=17", f"out={tmp_path / 'whole'}"))
    out = tmp_path / "prolonged"
    train(arguments(tmp_path, *EVERY, f"trainer.max_steps={shorter[0]}", f"out={out}"))
    for steps in (*shorter[1:], 17):
        resume(out, f"trainer.max_steps={steps}")
    assert_same_weights(tmp_path / "whole", out)
    assert rows(tmp_path / "whole") == rows(out)


def test_epochs_are_prolonged_too_and_counted_right(tmp_path, capsys):
    train(arguments(tmp_path, *EVERY, "trainer.max_epochs=3", f"out={tmp_path / 'whole'}"))
    out = tmp_path / "prolonged"
    train(arguments(tmp_path, *EVERY, "trainer.max_epochs=1", f"out={out}"))
    assert runs.checkpoint(out)["global_step"] == EPOCH
    capsys.readouterr()
    resume(out)
    assert f"the run ended at step {EPOCH}" in capsys.readouterr().out
    for epochs in (2, 3):
        resume(out, f"trainer.max_epochs={epochs}")
    assert runs.checkpoint(out)["global_step"] == 3 * EPOCH
    assert_same_weights(tmp_path / "whole", out)
    assert rows(tmp_path / "whole") == rows(out)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ctrl_c_saves_the_step_under_way(tmp_path, monkeypatch, capsys, accumulate):
    more = (*EVERY, "trainer.max_steps=6", f"trainer.accumulate={accumulate}")
    train(arguments(tmp_path, *more, f"out={tmp_path / 'whole'}"))
    out = tmp_path / "stopped"
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        runs.crash_at(2, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(arguments(tmp_path, *more, f"out={out}")) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().out.splitlines()[-1]
    done = {1: 3, 2: 2}[accumulate]
    assert said.startswith(f"interrupted at step {done}") and f"resume={out / 'checkpoints' / 'last.ckpt'}" in said
    assert runs.checkpoint(out)["global_step"] == done
    resume(out)
    assert_same_weights(tmp_path / "whole", out)
    assert rows(tmp_path / "whole") == rows(out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The last checkpoint of a run of 2 steps, and the arguments that describe the data it had."""
    folder = tmp_path_factory.mktemp("finished")
    train(arguments(folder, "optimizer.lr=2e-4", "trainer.max_steps=2", "trainer.log_every=2", f"out={folder / 'out'}"))
    return folder / "out" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("recipe=multiflow_legacy", "recipe=multiflow_legacy contradicts the checkpoint, which has tiny"),
        ("model.c_s=32", r"model\.c_s=32 contradicts the checkpoint, which has 16"),
        ("model.trunk.stages.0.depth=3", r"model\.trunk\.stages\.0\.depth=3 contradicts"),
        ("model/trunk=ipa", r"model\.trunk\.stages\.0\.\w+=.* contradicts"),
        ("name=other", "name=other contradicts"),
        ("optimizer.rate=1", "unknown key optimizer.rate"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("data=multiflow", "data.path is missing"),
        ("seed=${trainer.max_steps}", "give the value itself, not a reference"),
        ("out=${name}", "reference"),
    ],
)
def test_what_contradicts_the_checkpoint_is_an_error_with_its_cure(finished, typed, said):
    with pytest.raises(UserError, match=said) as error:
        train([f"resume={finished}", typed])
    if "contradicts" in said:
        assert f"weights={finished}" in str(error.value)


def test_only_what_was_typed_changes_and_is_printed(finished, tmp_path, capsys):
    typed = ("recipe=tiny", "model.c_s=16", "trainer=cpu", "trainer.max_steps=3", "flow.self_condition_share=1")
    train([f"resume={finished}", *typed, "optimizer.lr=1e-3", "seed=123", f"out={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert sorted(line.strip() for line in said.splitlines() if " -> " in line) == [
        "flow.self_condition_share: 0.5 -> 1.0",
        "optimizer.lr: 0.0002 -> 0.001",
        "trainer.max_steps: 2 -> 3",
    ]
    before, after = (torch.load(path, weights_only=True) for path in (finished, tmp_path / "out/checkpoints/last.ckpt"))
    assert after["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3
    old, new = before["trunkline"]["recipe"], after["trunkline"]["recipe"]
    assert old["data"] == new["data"] and old["model"] == new["model"]
    assert [row["step"] for row in rows(tmp_path / "out")] == ["3"]


def test_a_run_that_has_ended_says_so(finished, capsys):
    before = finished.stat().st_mtime_ns
    assert resume(finished.parents[1]) == 0
    assert "the run ended at step 2: raise trainer.max_steps" in capsys.readouterr().out
    assert finished.stat().st_mtime_ns == before


def test_nothing_is_made_elsewhere_of_a_run_that_has_ended(finished, tmp_path):
    assert train([f"resume={finished}", f"out={tmp_path / 'elsewhere'}"]) == 0
    assert not (tmp_path / "elsewhere").exists()


def test_a_checkpoint_without_an_optimizer_is_for_a_warm_start(finished, tmp_path):
    saved = torch.load(finished, weights_only=True)
    torch.save(saved | {"optimizer_states": []}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="holds weights, but no optimizer state: start a new run by weights="):
        train([f"resume={tmp_path / 'a.ckpt'}", f"out={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda saved: saved["optimizer_states"][0]["state"].pop(3), "the optimizer's state of .* is missing"),
        (lambda saved: saved["optimizer_states"][0]["state"][2].update(exp_avg=torch.zeros(5)), r"exp_avg of .* \[5\]"),
        (lambda saved: saved.update(loops={}), "does not say how far"),
        (lambda saved: next(iter(saved["state_dict"].values())).fill_(float("nan")), "not all finite"),
    ],
)
def test_a_damaged_state_is_told_before_anything_is_written(finished, tmp_path, damage, said):
    saved = torch.load(finished, weights_only=True)
    damage(saved)
    torch.save(saved, tmp_path / "damaged.ckpt")
    with pytest.raises(UserError, match=rf"damaged\.ckpt: damaged, .*{said}"):
        train([f"resume={tmp_path / 'damaged.ckpt'}", "trainer.max_steps=3", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_where_nothing_is_left_of_the_last_epoch_the_run_ends(tmp_path):
    """Six of seven batches are done; of one batch an epoch that is all of it."""
    out = tmp_path / "out"
    train(arguments(tmp_path, "trainer.max_epochs=1", f"trainer.max_steps={EPOCH - 1}", f"out={out}"))
    one = ("data.loader.max_batch_size=64", "data.loader.bucket=16")
    resume(out, "trainer.max_steps=-1", *one)
    assert json.loads((out / "summary.json").read_text())["steps"] == EPOCH - 1
    resume(out, "trainer.max_steps=-1", "trainer.max_epochs=3", *one)
    assert json.loads((out / "summary.json").read_text())["steps"] == EPOCH + 1
