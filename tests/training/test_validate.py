"""Validation in runs: what it writes, that training does not notice it, and that it is neither lost nor done twice."""

import json
import os
import signal

import pytest
import torch

from app.data.datamodule import ProteinDataModule
from app.sampling.inputs import Task
from app.training import trial_designs
from app.training.checkpoint import load_module
from app.training.held_out_losses import NAMES, at, held_out_losses
from app.training.module import CodesignModule
from app.training.run import train
from app.training.validate import Validate
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights

SMALL = ["validation.times=[0.2,0.7]", "validation.lengths=[7]", "validation.designs=2", "validation.folds=2"]
HELD_OUT = "data.validation.fraction=0.3"  # 3 of 13


def validated(folder, *more):
    """A run that validates every other step; of what is typed twice the last holds."""
    typed = arguments(folder, HELD_OUT, *SMALL, "validation.steps=2", "trainer.validate_every=2", *more)
    return list({text.partition("=")[0]: text for text in typed}.values())


def rows(out, of_validation=True):
    return [row for row in runs.rows(out) if bool(row.get("train_loss")) != of_validation]


def summary(out):
    return json.loads((out / "summary.json").read_text())


def steps(out):
    return [int(row["step"]) for row in rows(out)]


def last(out):
    return out / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(validated(folder, "trainer.checkpoint_every=2", "trainer.max_steps=5", f"out={folder / 'out'}"))
    return folder


def test_a_line_has_losses_designs_and_folds(whole):
    assert steps(whole / "out") == [2, 4, 5]
    for row in rows(whole / "out"):
        values = {name: float(text) for name, text in row.items() if text and name != "step"}
        assert values.keys() == {
            *NAMES.values(), *(at(name, time) for name in NAMES.values() for time in (0.2, 0.7)),
            *trial_designs.COLUMNS, "validation_examples",
        }  # fmt: skip
        assert values["validation_examples"] == 3
        for name in NAMES.values():
            assert values[name] == pytest.approx((values[at(name, 0.2)] + values[at(name, 0.7)]) / 2, rel=1e-4)
        shares = set(trial_designs.COLUMNS) - {"designs_clashes"}
        assert all(0 <= values[name] <= 1 for name in shares)
    found = summary(whole / "out")["best"]
    losses = {int(row["step"]): float(row["validation_loss"]) for row in rows(whole / "out")}
    assert found == {"metric": "validation_loss", "value": min(losses.values()), "step": min(losses, key=losses.get)}


def test_it_is_the_average_of_the_weights_that_is_validated(whole):
    """By hand, from the checkpoint of the same step, without the run's machinery."""
    module = load_module(last(whole / "out"))
    data = ProteinDataModule(module.recipe.data, validated=None)
    data.setup()
    batch = data.read_held_out(range(len(data.held_out.names)))
    with torch.no_grad():
        expected = held_out_losses(module, batch)
    row = rows(whole / "out")[-1]
    for name, values in expected.items():
        assert float(row[name]) == pytest.approx(values.mean().item(), rel=1e-3), name
    trained = held_out_losses(load_module(last(whole / "out"), use_ema=False), batch)
    name = at("validation_loss", 0.7)
    assert abs(trained[name].mean().item() - float(row[name])) > 1e-3

    module.recipe = module.recipe.model_copy()
    for task in (Task.FORWARD_FOLDING, Task.INVERSE_FOLDING):
        chosen = dict(trial_designs.pieces(module.recipe.validation, data, True))[task]()
        (column, values), *_ = trial_designs.sampled(module, task, chosen).items()
        assert float(row[column]) == pytest.approx(values.mean().item(), abs=1e-3)


@pytest.mark.parametrize("more", [[], ["trainer.accumulate=2", "data.loader.num_workers=1"]])
def test_training_does_not_notice(tmp_path, more):
    end = ("trainer.max_steps=5", "trainer.log_every=3", *more)
    train(validated(tmp_path, *end, f"out={tmp_path / 'with'}"))
    train(validated(tmp_path, *end, "trainer.validate_every=null", f"out={tmp_path / 'without'}"))
    assert steps(tmp_path / "with") == [2, 4, 5] and steps(tmp_path / "without") == []
    assert_same_weights(tmp_path / "with", tmp_path / "without")
    columns = rows(tmp_path / "without", of_validation=False)[0].keys()
    lines = [{name: row[name] for name in columns} for row in rows(tmp_path / "with", of_validation=False)]
    assert lines == rows(tmp_path / "without", of_validation=False)
    assert not [name for name in columns if name.startswith(("validation_l", "validation_e", "designs"))]


def test_numbers_of_two_runs_can_be_compared(tmp_path):
    """Of one model, with another seed and other batches."""
    still = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "trainer.max_steps=2")
    start = tmp_path / "start"
    train(arguments(tmp_path, "trainer.max_steps=1", f"out={start}"))
    for name, more in (("one", []), ("other", ["seed=9", "data.loader.max_batch_size=3", "data.loader.seed=4"])):
        train(validated(tmp_path, *still, f"weights={last(start)}", *more, f"out={tmp_path / name}"))
    (one,), (other,) = rows(tmp_path / "one"), rows(tmp_path / "other")
    for name, text in one.items():
        assert bool(text) == bool(other[name])
        assert not text or float(text) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("when", ["losses", "designs"])
@pytest.mark.parametrize("how", [signal.SIGTERM, None])
def test_a_run_stopped_in_validation_ends_as_one_that_was_not(whole, tmp_path, monkeypatch, when, how):
    out, done = tmp_path / "out", []
    name = "on_validation_batch_end" if when == "losses" else "_sample"
    before = getattr(Validate, name)

    def struck(self, trainer, *rest):
        if trainer.global_step == 4 and not done:
            done.append(True)
            if how is None:
                raise runs.Crash
            os.kill(os.getpid(), how)
        return before(self, trainer, *rest)

    monkeypatch.setattr(Validate, name, struck)
    start = validated(whole, "trainer.checkpoint_every=2", "trainer.max_steps=5", f"out={out}")
    if how is None:
        with pytest.raises(runs.Crash):
            train(start)
    else:
        assert train(start) == 128 + how
    assert steps(out) == [2], "what was cut short has no line"
    assert runs.checkpoint(out)["global_step"] == (2 if how is None else 4)
    train([f"resume={last(out)}"])
    assert_same_weights(whole / "out", out)
    assert runs.rows(out) == runs.rows(whole / "out")


def test_lines_that_a_resumed_run_writes_anew_are_dropped(whole, tmp_path):
    """That of the end of a run which goes on after all, and those after the checkpoint."""
    out = tmp_path / "out"
    more = ("trainer.checkpoint_every=2", "trainer.log_every=3")
    train(validated(whole, *more, "trainer.max_steps=3", f"out={out}"))
    assert steps(out) == [2, 3]
    train([f"resume={last(out)}", "trainer.max_steps=5"])
    assert steps(out) == [2, 4, 5]
    assert rows(out) == rows(whole / "out")
    train([f"resume={out / 'checkpoints' / 'step-000004.ckpt'}", "trainer.max_steps=7", f"out={tmp_path / 'on'}"])
    assert steps(tmp_path / "on") == [6, 7]


def test_without_anything_held_out_there_are_designs_all_the_same(tmp_path, capsys):
    train(validated(tmp_path, "trainer.max_steps=2", "data.validation.fraction=0", f"out={tmp_path / 'out'}"))
    (row,) = rows(tmp_path / "out")
    designs = {name for name in trial_designs.COLUMNS if name.startswith("designs")}
    assert {name for name, text in row.items() if text} == {"step", *designs}
    assert capsys.readouterr().out.count("nothing is held out: validation takes no losses") == 1


def test_without_anything_to_validate_it_is_said_once_and_no_line_is_written(tmp_path, capsys):
    nothing = ("data.validation.fraction=0", "validation.lengths=[]")
    train(validated(tmp_path, "trainer.max_steps=4", *nothing, f"out={tmp_path / 'out'}"))
    assert steps(tmp_path / "out") == []
    told = capsys.readouterr().out
    assert told.count("nothing to validate") == 1 and "takes no losses" not in told


def test_a_design_without_a_bond_is_no_perfect_one(tmp_path):
    """A single residue has neither bonds nor angles at them, but may have helices."""
    found = {}
    for lengths in ("[1]", "[7]", "[1,7]"):
        more = ("data.validation.fraction=0", f"validation.lengths={lengths}", f"out={tmp_path / lengths}")
        train(validated(tmp_path, "trainer.max_steps=2", *more))
        (found[lengths],) = rows(tmp_path / lengths)
    for column in ("designs_bonds", "designs_angles", "designs_ca_ca"):
        assert not found["[1]"][column]
        assert found["[1,7]"][column] == found["[7]"][column] != ""
    assert found["[1]"]["designs_helix"]


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        (["validation.times=[]"], set(trial_designs.COLUMNS)),
        (["validation.designs=0", "validation.folds=0"], {"validation_loss"}),
        (["validation.lengths=[]", "validation.times=[]", "validation.folds=0"], set()),
        (["trainer.validate_every=null"], set()),
        (["trainer.max_steps=1"], set()),  # of a run that is shorter
    ],
)
def test_what_is_switched_off_is_not_done(whole, tmp_path, off, expected):
    train(validated(whole, "trainer.max_steps=2", *off, f"out={tmp_path / 'out'}"))
    found = {name for row in rows(tmp_path / "out") for name, text in row.items() if text}
    assert found & {*trial_designs.COLUMNS, "validation_loss"} == expected


def test_a_model_without_a_sequence_head_is_not_asked_for_sequences(whole, tmp_path):
    more = ("model/head=none", "trainer.max_steps=2", f"out={tmp_path / 'out'}")
    train(validated(whole, *more))
    (row,) = rows(tmp_path / "out")
    assert row["forward_folding_tm_score"] and not row["inverse_folding_recovery"]


def test_out_of_memory_leaves_out_what_does_not_fit(whole, tmp_path, monkeypatch):
    losses, sample = CodesignModule.losses, trial_designs.sample

    def tight(module, batch):
        if not module.training and len(batch.res_mask) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return losses(module, batch)

    def never(module, task, batch):
        if task is Task.INVERSE_FOLDING:
            raise torch.OutOfMemoryError("out of memory")
        return sample(module, task, batch)

    monkeypatch.setattr(CodesignModule, "losses", tight)
    monkeypatch.setattr(trial_designs, "sample", never)
    train(validated(whole, "trainer.max_steps=2", f"out={tmp_path / 'out'}"))
    (row,), (expected, *_) = rows(tmp_path / "out"), rows(whole / "out")
    assert float(row["validation_loss"]) == pytest.approx(float(expected["validation_loss"]), rel=1e-4)
    assert row["validation_examples"] == "3" and row["forward_folding_tm_score"]
    assert not row["inverse_folding_recovery"]
    assert not row["validation_left_out"] and row["validation_designs_left_out"] == "2"
    assert summary(tmp_path / "out")["skipped_oom"] == 2


def test_a_validation_that_left_something_out_says_so_and_is_not_the_best(whole, tmp_path, monkeypatch, capsys):
    def tight(module, batch):
        """At step 2 one held-out chain does not fit, and the others are known well; at step 4 none fits."""
        if module.global_step == 4 or (module.global_step == 2 and unlucky(batch.names)):
            raise torch.OutOfMemoryError("out of memory")
        found = held_out_losses(module, batch)
        return {name: values / 100 for name, values in found.items()} if module.global_step == 2 else found

    chosen = []

    def unlucky(names):
        chosen[:] = chosen or names[:1]
        return chosen[0] in names

    monkeypatch.setattr("app.training.module.held_out_losses", tight)
    none = ("validation.designs=0", "validation.folds=0")
    train(validated(whole, "trainer.max_steps=5", *none, f"out={tmp_path / 'out'}"))
    found = rows(tmp_path / "out")
    assert [row["validation_left_out"] for row in found] == ["1", "3", ""]
    assert [row["validation_examples"] for row in found] == ["2", "", "3"]
    assert bool(found[0]["validation_loss"]) and not found[1]["validation_loss"]
    told = summary(tmp_path / "out")
    assert told["best"]["step"] == 5 and told["skipped_oom"] == 4
    assert "step 4  3 left out of the losses: out of memory  in" in capsys.readouterr().out


def test_every_rank_samples_equally_often():
    found = [(Task.UNCONDITIONAL, number) for number in range(5)]
    for world_size in (1, 2, 3, 7):
        shares = [trial_designs.of_rank(found, rank, world_size) for rank in range(world_size)]
        assert len({len(share) for share in shares}) == 1
        assert {number for share in shares for _, number in share} == set(range(5))
    assert trial_designs.of_rank([], 0, 2) == []


def test_so_many_held_out_examples_at_most_are_validated(tmp_path):
    made = validated(tmp_path, "validation.examples=2", "trainer.max_steps=2", f"out={tmp_path / 'out'}")
    train(made)
    assert rows(tmp_path / "out")[0]["validation_examples"] == "2"
