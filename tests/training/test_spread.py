"""Two processes that train one model, on the CPU: copies (DDP) and shards (FSDP)."""

import resource
import shutil
import signal
import sys

import pytest
import torch

from app.training.checkpoint import load_module
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, rows, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is set up by hand elsewhere"),
]
every_strategy = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


def run(*command: str) -> str:
    with runs.in_own_process(*command) as process:
        out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    return out


def two(strategy: str) -> tuple[str, ...]:
    return "trainer.devices=2", f"trainer.strategy={strategy}", "trainer.gradient_clip=1"


@every_strategy
def test_they_end_as_if_never_stopped_and_as_each_other(tmp_path, strategy):
    made = arguments(tmp_path, *two(strategy), "trainer.residues_per_step=40", "trainer.log_every=2")
    run(*made, "trainer.max_steps=6", f"out={tmp_path / 'whole'}")
    run(*made, "trainer.max_steps=3", f"out={tmp_path / 'resumed'}")
    run(f"resume={tmp_path / 'resumed' / 'checkpoints' / 'last.ckpt'}", "trainer.max_steps=6")
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "resumed")


def test_shards_and_copies_train_alike_and_leave_the_same_checkpoint(tmp_path):
    for strategy in ("ddp", "fsdp"):
        run(*arguments(tmp_path, *two(strategy)), "trainer.max_steps=3", f"out={tmp_path / strategy}")
    found, expected = weights(tmp_path / "fsdp"), weights(tmp_path / "ddp")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_shards_goes_on_and_samples_on_one_device(tmp_path):
    run(*arguments(tmp_path, *two("fsdp")), "trainer.max_steps=3", f"out={tmp_path / 'out'}")
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    shutil.copy(last, tmp_path / "kept.ckpt")
    module = load_module(tmp_path / "kept.ckpt")
    assert module.sample(lengths=[8], steps=2).clean_trans.isfinite().all()
    run(f"resume={last}", "trainer.devices=1", "trainer.strategy=auto", "trainer.max_steps=5")
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 5


@every_strategy
def test_fewer_examples_than_ranks_and_uneven_lengths_do_not_hang(tmp_path, strategy):
    few = [text for text in arguments(tmp_path, *two(strategy)) if not text.startswith("data.path")]
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("made00", "made02"):  # 8 and 10 residues
        shutil.copy(tmp_path / "structures" / f"{name}.pdb", folder)
    run(*few, f"data.path={folder}", "trainer.max_steps=3", f"out={tmp_path / 'two'}")
    (folder / "made02.pdb").unlink()
    run(*few, f"data.path={folder}", "trainer.max_steps=3", f"out={tmp_path / 'one'}")


@every_strategy
def test_schedules_groups_and_the_average_go_on_on_any_number_of_devices(tmp_path, strategy):
    groups = "optimizer.groups=[{match: trunk.*,lr_scale: 0.5},{max_dim: 1,weight_decay: 0.0}]"
    more = (*two(strategy), groups, "schedule=cosine", "schedule.warmup_steps=2", "schedule.total_steps=6")
    made = arguments(tmp_path, *more, "ema.decay=0.5", "trainer.log_every=2")
    run(*made, "trainer.max_steps=6", f"out={tmp_path / 'whole'}")
    run(*made, "trainer.max_steps=3", f"out={tmp_path / 'resumed'}")
    last = tmp_path / "resumed" / "checkpoints" / "last.ckpt"
    alone = ("trainer.devices=1", "trainer.strategy=auto", "optimizer.groups=[]", "schedule=constant")
    run(f"resume={last}", *alone, "trainer.max_steps=4", f"out={tmp_path / 'alone'}")
    run(f"resume={last}", "trainer.max_steps=6")
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "resumed")
    on = tmp_path / "alone" / "checkpoints" / "last.ckpt"
    shards = ("trainer.devices=2", f"trainer.strategy={strategy}", groups, "schedule=warmup", "schedule.warmup_steps=2")
    run(f"resume={on}", *shards, "trainer.max_steps=5")
    assert runs.checkpoint(tmp_path / "alone")["global_step"] == 5


@every_strategy
def test_where_no_checkpoint_can_be_written_all_end_with_one_message(tmp_path, strategy):
    made = arguments(tmp_path, *two(strategy), "trainer.max_steps=8", "trainer.checkpoint_every=4")

    def files_of_50_kilobytes_at_most():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond is an error then

    with runs.in_own_process(*made, f"out={tmp_path / 'out'}", preexec_fn=files_of_50_kilobytes_at_most) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    told = [line for line in error.splitlines() if "last.ckpt" in line]
    assert told and all(line.startswith("error: ") and "cannot be written (File too large)" in line for line in told)
    assert "Traceback" not in error


def validation(out) -> dict[str, float]:
    """The numbers of a run's first validation."""
    row = next(row for row in rows(out) if not row["train_loss"])
    return {name: float(text) for name, text in row.items() if text}


@pytest.mark.parametrize("more", [[], ["ema.decay=null"]])
@every_strategy
def test_two_validate_to_the_numbers_of_one(tmp_path, strategy, more):
    """Of the same weights; each held-out example counts once, though the ranks' batches do not come out even."""
    validate = (
        *("data.validation.fraction=0.4", "trainer.validate_every=1", "validation.times=[0.2,0.7]"),
        *("validation.lengths=[7]", "validation.designs=3", "validation.folds=3", "validation.steps=3"),
        *("optimizer.lr=1e-12", "optimizer.weight_decay=0", "data.loader.max_batch_size=2", "trainer.max_steps=2"),
    )
    made = [text for text in arguments(tmp_path) if not text.startswith("data.loader")]
    run(*made, *validate, *more, f"out={tmp_path / 'one'}")
    run(*made, *validate, *more, *two(strategy), f"out={tmp_path / 'two'}")
    expected, found = validation(tmp_path / "one"), validation(tmp_path / "two")
    assert found.keys() == expected.keys() and expected["validation_examples"] == 5
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    last = runs.checkpoint(tmp_path / "two")
    assert last["global_step"] == 2 and all(tensor.isfinite().all() for tensor in last["state_dict"].values())


@every_strategy
def test_two_validate_and_train_on_as_if_they_had_not(tmp_path, strategy):
    small = ("validation.times=[0.5]", "validation.lengths=[7]", "validation.folds=1", "validation.steps=2")
    made = arguments(tmp_path, *two(strategy), *small, "data.validation.fraction=0.3", "trainer.max_steps=4")
    run(*made, "trainer.validate_every=2", f"out={tmp_path / 'with'}")
    run(*made, "trainer.validate_every=null", f"out={tmp_path / 'without'}")
    assert_same_weights(tmp_path / "with", tmp_path / "without")
