"""Out of memory and bad numbers on one device: in halves, then skipped; counted, told of, and no trace left."""

import csv
import json
import math

import pytest
import torch

from app.data.ledger import Ledger
from app.errors import UserError
from app.ops import select
from app.training import step as steps
from app.training.module import CodesignModule
from app.training.passes import Place, passes
from app.training.run import train
from tests.factories import protein_batch, tiny_module
from tests.training import runs
from tests.training.injected import Fault, inject
from tests.training.runs import EPOCH, arguments, assert_same_weights, rows, weights

SKIPPING = ["forward", "backward", "optimizer", "midway", "module", "gradient", "loss"]
MEMORY = SKIPPING[:4]


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def run_with(patch, faults, *made: str):
    with patch.context() as inner:
        found = inject(faults, inner)
        train(list(made))
    return found


# Halves


@pytest.mark.parametrize("where", ["ledger", "forward", "backward"])
@pytest.mark.parametrize("earlier", [False, True])
def test_halves_give_the_gradient_of_the_whole_and_its_losses(where, earlier, monkeypatch):
    """Self-conditioned; with the gradient of an earlier batch beside it."""
    batch, place, ledger = protein_batch(5, 12, given=2, missing=2), Place(0, 3, 0), Ledger()
    found = []
    for halved in (False, True):
        with monkeypatch.context() as patch:
            if halved and where == "ledger":
                ledger.note([(2, 12)])
            elif halved:
                inject([Fault(where, 3, above=1)], patch)
            module = tiny_module(flow={"self_condition_share": 1.0}).train()
            if earlier:
                passes(module, protein_batch(2, 9, seed=4), Place(0, 2, 0), Ledger())
            out = passes(module, batch, place, ledger)
        found.append((out, [p.grad for p in module.parameters()]))
    (whole, gradients), (parts, of_parts) = found
    assert ledger.shapes == {(2, 12)}
    largest = max(gradient.abs().max() for gradient in gradients)
    assert max((one - other).abs().max() for one, other in zip(gradients, of_parts, strict=True)) < 1e-6 * largest
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_alone_leaves_the_gradient_as_it_was(monkeypatch):
    inject([Fault("backward", 3)], monkeypatch)
    module = tiny_module().train()
    passes(module, protein_batch(2, 9), Place(0, 2, 0), Ledger())
    before = [p.grad.clone() for p in module.parameters()]
    assert passes(module, protein_batch(3, 12), Place(0, 3, 0), Ledger()) is None
    assert all(torch.equal(p.grad, kept) for p, kept in zip(module.parameters(), before, strict=True))


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    runs.crash_at(2, monkeypatch)
    with pytest.raises(runs.Crash):
        train(arguments(tmp_path, "trainer.max_steps=4", f"out={tmp_path / 'out'}"))


# Skipped


def plainly(seen, recipe: dict, skipped: set[int], ledger: Ledger) -> dict[str, torch.Tensor]:
    """Weights after AdamW's steps over these batches, less some, written out."""
    torch.manual_seed(recipe["seed"])
    module = CodesignModule(recipe).train()
    optimizer = module.configure_optimizers()
    with select.using(module.recipe.kernels):
        for number, (place, batch) in enumerate(seen.items()):
            if number not in skipped:
                if ledger.shapes:
                    passes(module, batch, place, ledger)
                else:
                    module.outputs(batch, place)["loss"].backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), recipe["trainer"]["gradient_clip"])
                optimizer.step()
                optimizer.zero_grad()
    return module.state_dict()


@pytest.mark.parametrize("where", SKIPPING)
def test_a_skipped_step_leaves_no_trace_in_the_weights(tmp_path, monkeypatch, where, capsys):
    made = arguments(tmp_path, "trainer.max_steps=4", "trainer.log_every=1", f"out={tmp_path / 'out'}")
    found = run_with(monkeypatch, [Fault(where, 0), Fault(where, 2)], *made)  # the first has no state to go back to
    ledger = Ledger()
    ledger.note([(1, 8)] if where in ("forward", "backward") else [])  # of the first, in parts of which the others go
    expected = plainly(found.seen, runs.checkpoint(tmp_path / "out")["trunkline"]["recipe"], {0, 2}, ledger)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "out").items())
    told, kind = summary(tmp_path / "out"), "skipped_oom" if where in MEMORY else "skipped_nonfinite"
    assert told["steps"] == 4 and told[kind] == told["skipped_oom"] + told["skipped_nonfinite"] == 2
    with (tmp_path / "out" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(float(value)) for line in lines for value in line.values() if value)
    assert [bool(line["gradient_norm"]) for line in lines] == [False, True, False, True]
    said = capsys.readouterr().out
    names = found.seen[Place(0, 2, 0)].names
    if where in MEMORY:
        size = f" with {len(names)} x " if where in ("forward", "backward") else " in the optimizer's step"
        assert f"step 3: skipped: out of memory{size}" in said
    else:
        (suspects,) = [line for line in said.splitlines() if line.startswith("step 3: skipped: numbers that are not")]
        assert names[-1] in suspects and suspects.endswith(f"replay {tmp_path / 'out'}/replay/step-000003.ckpt")
        assert not (where == "loss" and len(names) > 1 and names[0] in suspects)


@pytest.mark.parametrize("where", ["optimizer", "midway"])
def test_an_optimizers_step_that_fails_once_is_made(tmp_path, monkeypatch, where):
    made = arguments(tmp_path, "trainer.max_steps=3")
    run_with(monkeypatch, [], *made, f"out={tmp_path / 'whole'}")
    run_with(monkeypatch, [Fault(where, 0, times=1), Fault(where, 2, times=1)], *made, f"out={tmp_path / 'out'}")
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert summary(tmp_path / "out")["skipped_oom"] == 0


@pytest.mark.parametrize("where", ["backward", "module"])
def test_of_accumulated_batches_one_that_fails_takes_the_step_with_it(tmp_path, monkeypatch, where):
    more = (
        "trainer.accumulate=2",
        "trainer.max_steps=4",
        "ema.decay=0.9",
        "schedule=warmup",
        "schedule.warmup_steps=9",
    )
    made = arguments(tmp_path, *more, f"out={tmp_path / 'out'}")
    run_with(monkeypatch, [Fault(where, 2)], *made)  # the first of the second step
    run_with(monkeypatch, [Fault(where, 3)], *made[:-1], f"out={tmp_path / 'other'}")
    assert_same_weights(tmp_path / "out", tmp_path / "other")
    saved = runs.checkpoint(tmp_path / "out")
    assert saved["global_step"] == 4 and saved["callbacks"]["ema"]["updates"] == 3
    assert {int(state["step"]) for state in saved["optimizer_states"][0]["state"].values()} == {3}


# Too many in a row


@pytest.mark.parametrize("where", ["forward", "module"])
def test_many_in_a_row_end_the_run(tmp_path, monkeypatch, where):
    out = tmp_path / "out"
    faults = [Fault(where, batch) for batch in (0, 2, 3, 4, 5)]
    made = arguments(tmp_path, "trainer.max_steps=9", "trainer.stop_after_skipped=3", "trainer.checkpoint_every=2")
    with pytest.raises(UserError, match=r"step 5: 3 optimizer steps in a row were skipped.* because of"):
        run_with(monkeypatch, faults, *made, f"out={out}")
    assert runs.checkpoint(out)["global_step"] == 4
    told = summary(out)
    assert told["skipped_oom"] + told["skipped_nonfinite"] == 4
    with pytest.raises(UserError, match="step 5: 3 optimizer steps"):  # it goes on counting
        run_with(monkeypatch, faults, f"resume={out / 'checkpoints' / 'last.ckpt'}")
    run_with(monkeypatch, [], f"resume={out / 'checkpoints' / 'last.ckpt'}")
    assert runs.checkpoint(out)["global_step"] == 9
    assert runs.checkpoint(out)["callbacks"]["skipped"]["in_row"] == 0


# Resuming


@pytest.mark.slow
def test_a_run_resumed_after_a_skipped_step_and_with_a_ledger_ends_as_one_never_stopped(tmp_path, monkeypatch):
    """Dropout included: later batches are cut where those before were."""
    more = ("trainer.checkpoint_every=1", "trainer.log_every=2", "ema.decay=0.5")
    made = arguments(tmp_path, *more)
    faults = [Fault("forward", 1, above=1), Fault("forward", 2, above=1), Fault("module", 3), Fault("backward", 4)]
    run_with(monkeypatch, faults, *made, f"trainer.max_steps={2 * EPOCH}", f"out={tmp_path / 'whole'}")
    for stop in (4, EPOCH + 2):
        out = tmp_path / f"stopped{stop}"
        run_with(monkeypatch, faults, *made, f"trainer.max_steps={stop}", f"out={out}")
        run_with(monkeypatch, faults, f"resume={out / 'checkpoints/last.ckpt'}", f"trainer.max_steps={2 * EPOCH}")
        assert_same_weights(tmp_path / "whole", out)
        assert rows(out) == rows(tmp_path / "whole")
        assert [summary(each)["skipped_oom"] for each in (out, tmp_path / "whole")] == [1, 1]
    assert runs.checkpoint(tmp_path / "whole")["callbacks"]["skipped"]["shapes"]


def test_a_ledger_is_of_its_device(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    run_with(monkeypatch, [Fault("forward", 1, above=1)], *arguments(tmp_path, "trainer.max_steps=3"), f"out={out}")
    assert capsys.readouterr().out.count("batches no smaller are computed in parts from now on") == 1
    shapes = runs.checkpoint(out)["callbacks"]["skipped"]["shapes"]
    monkeypatch.setattr("app.training.skipped.memory_of", lambda device: 2**40)
    run_with(monkeypatch, [], f"resume={out / 'checkpoints/last.ckpt'}", "trainer.max_steps=4")
    assert shapes and runs.checkpoint(out)["callbacks"]["skipped"]["shapes"] == []


@pytest.mark.slow
def test_a_checkpoint_whose_steps_lightning_had_made_goes_on(tmp_path):
    """As they were written before steps were made here."""
    made = arguments(tmp_path, "trainer.checkpoint_every=1", "trainer.keep_checkpoints=null")
    train([*made, f"trainer.max_steps={EPOCH + 3}", f"out={tmp_path / 'whole'}"])
    train([*made, f"trainer.max_steps={EPOCH + 1}", f"out={tmp_path / 'out'}"])
    for step in (3, EPOCH, EPOCH + 1):
        saved = runs.checkpoint(tmp_path / "out", f"step-{step:06d}.ckpt")
        fit = saved["loops"]["fit_loop"]
        manual = fit["epoch_loop.manual_optimization.optim_step_progress"]
        automatic = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
        automatic["total"], manual["total"] = dict(manual["total"]), {"ready": 0, "completed": 0}
        del saved["callbacks"]["skipped"]
        torch.save(saved, tmp_path / f"{step}.ckpt")
        out = tmp_path / f"again{step}"
        train([f"resume={tmp_path / f'{step}.ckpt'}", f"trainer.max_steps={EPOCH + 3}", f"out={out}"])
        assert_same_weights(tmp_path / "whole", out)


def test_the_rate_is_the_schedules_at_skipped_steps_too(tmp_path, monkeypatch):
    made = arguments(
        tmp_path, "trainer.max_steps=4", "trainer.log_every=1", "schedule=cosine", "schedule.warmup_steps=0"
    )
    train([*made, f"out={tmp_path / 'whole'}"])
    run_with(monkeypatch, [Fault("loss", 1), Fault("loss", 2)], *made, f"out={tmp_path / 'out'}")
    assert [row["lr"] for row in rows(tmp_path / "out")] == [row["lr"] for row in rows(tmp_path / "whole")]


def test_clipping_that_lacks_memory_is_tried_again(tmp_path, monkeypatch):
    made = arguments(tmp_path, "trainer.max_steps=2", "trainer.gradient_clip=1")
    train([*made, f"out={tmp_path / 'whole'}"])
    clip, failures = steps.clip_grads_with_norm_, iter([torch.OutOfMemoryError("out of memory (injected)")])

    def fails_once(*given):
        for error in failures:
            raise error
        return clip(*given)

    monkeypatch.setattr(steps, "clip_grads_with_norm_", fails_once)
    train([*made, f"out={tmp_path / 'out'}"])
    assert next(failures, None) is None
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_what_cannot_be_kept_for_replay_is_told_of(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "replay").touch()
    made = arguments(tmp_path, "trainer.max_steps=3", f"out={tmp_path / 'out'}")
    run_with(monkeypatch, [Fault("loss", 1)], *made)
    said = capsys.readouterr().out
    assert "warning: " in said and "cannot be written" in said and "python -m app replay" not in said


def test_the_newest_step_for_replay_is_kept_whatever_an_earlier_life_left(tmp_path, monkeypatch):
    made = arguments(tmp_path, "trainer.max_steps=6", f"out={tmp_path / 'out'}", "resume=auto")
    with monkeypatch.context() as patch, pytest.raises(runs.Crash):
        inject([Fault("loss", 2), Fault("loss", 3), Fault("loss", 4)], patch)
        runs.crash_at(5, patch)
        train(made)
    run_with(monkeypatch, [Fault("loss", 1)], *made)
    assert [path.name for path in (tmp_path / "out" / "replay").iterdir()] == ["step-000002.ckpt"]
