"""A run that was stopped anywhere goes on with exactly the next batch: through Lightning, with and without workers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from app.data import datamodule
from app.data.batching import LengthBatchSampler
from app.data.datamodule import ProteinDataModule
from app.data.loader_settings import LoaderSettings
from app.data.steps import EACH_BATCH, StepSettings

EXAMPLES = 23
AN_EPOCH = 7  # batches


class Toy:
    """Examples of 4 to 7 residues, one of each pair an epoch; an example's translation tells which it is."""

    def __init__(self, _values: dict):
        self.names = [f"toy{index}" for index in range(EXAMPLES)]
        self.lengths = [4 + index % 4 for index in range(EXAMPLES)]

    def draw(self, epoch: int, seed: int):
        first = np.arange(0, EXAMPLES, 2)
        return np.minimum(first + np.random.default_rng((seed, epoch)).integers(0, 2, len(first)), EXAMPLES - 1)

    def __getitem__(self, index: int) -> dict:
        length = self.lengths[index]
        ones, indices = torch.ones(length), torch.arange(1, length + 1)
        return {
            "name": self.names[index],
            **dict.fromkeys(("res_mask", "diffuse_mask", "plddt_mask"), ones),
            **dict.fromkeys(("chain_idx", "res_idx", "aatypes_1"), indices),
            "trans_1": torch.full((length, 3), float(index)),
            "rotmats_1": torch.eye(3).expand(length, 3, 3),
        }


class Recorder(lightning.LightningModule):
    """Writes down the batches it sees; its weight remembers them all, in order."""

    def __init__(self, record: Path, pause: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.record, self.pause = record, pause

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        rank = self.trainer.global_rank
        with self.record.with_stem(f"record-{rank}" if rank else "record").open("a") as file:
            file.write(f"{self.current_epoch}:{batch_idx} {','.join(batch.names)}\n")
        return (self.weight * (1 + batch.trans_1.mean())).sin()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class SaveAlways(lightning.Callback):
    """Checkpoints named by hook and number of batches done, wherever one may be saved and no gradient is pending."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, trainer, when: str) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        aside = self.folder / "unfinished"
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            os.replace(aside, self.folder / f"{done:03d}-{when}.ckpt")

    def on_train_batch_end(self, trainer, *_):
        if not trainer.fit_loop._should_accumulate():
            self.save(trainer, "batch")

    def on_train_epoch_end(self, trainer, *_):
        self.save(trainer, "epoch")

    def on_train_end(self, trainer, *_):
        self.save(trainer, "end")


def fit(
    folder: Path, workers=0, accumulate=1, checkpoint=None, pause=0.0, batch_size=2, steps=EACH_BATCH, **limits
) -> Recorder:
    folder.mkdir()
    (folder / "record.txt").touch()
    datamodule.KINDS["toy"] = Toy
    torch.manual_seed(0)
    module = Recorder(folder / "record.txt", pause)
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[SaveAlways(folder)], accumulate_grad_batches=accumulate, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **limits,
    )  # fmt: skip
    loader = {"num_workers": workers, "max_batch_size": batch_size, "bucket": 2, "seed": 5}
    trainer.fit(module, ProteinDataModule({"kind": "toy", "loader": loader}, steps), ckpt_path=checkpoint)
    return module


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    monkeypatch.setattr(datamodule, "KINDS", dict(datamodule.KINDS))


def record(folder: Path, rank: int = 0) -> list[str]:
    return (folder / (f"record-{rank}.txt" if rank else "record.txt")).read_text().splitlines()


def sampler(batch_size=2, steps=EACH_BATCH) -> LengthBatchSampler:
    """Of what `fit` trains on."""
    toy, settings = Toy({}), LoaderSettings(max_batch_size=batch_size, bucket=2, seed=5)
    return LengthBatchSampler(toy.lengths, toy.draw, settings, steps=steps)


def lines_of(batches: LengthBatchSampler, epochs) -> list[str]:
    """The record of these epochs."""
    names = Toy({}).names
    return [
        f"{epoch}:{place} {','.join(names[index] for index in batch)}"
        for epoch in epochs
        for place, batch in enumerate(batches.batches(epoch))
    ]


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(batches done, path), in order."""
    return [(int(path.name[:3]), path) for path in sorted(folder.glob("*.ckpt"))]


def test_an_uninterrupted_run_sees_each_epochs_own_batches(tmp_path):
    fit(tmp_path / "whole", max_epochs=3)
    assert len(sampler()) == AN_EPOCH
    assert record(tmp_path / "whole") == lines_of(sampler(), range(3))


@pytest.mark.parametrize(
    ("workers", "accumulate", "limits"),
    [
        (0, 1, {"max_steps": 17}),
        (0, 2, {"max_steps": 9}),
        (0, 1, {"max_epochs": 2}),
        (2, 1, {"max_steps": 17}),
        (2, 2, {"max_steps": 9}),
    ],
)
def test_resumes_with_the_next_batch_from_every_checkpoint(tmp_path, workers, accumulate, limits):
    before = multiprocessing.active_children()  # of tests that ran in this process
    whole = fit(tmp_path / "whole", 0, accumulate, **limits)
    expected = record(tmp_path / "whole")
    assert [line.split()[0] for line in expected] == [f"{k // AN_EPOCH}:{k % AN_EPOCH}" for k in range(len(expected))]
    tried = checkpoints(tmp_path / "whole")
    assert {done % AN_EPOCH == 0 for done, _ in tried} == {True, False}
    for done, checkpoint in tried if workers == 0 else tried[::4]:
        folder = tmp_path / f"from-{checkpoint.stem}"
        resumed = fit(folder, workers, accumulate, checkpoint, **limits)
        assert record(folder) == expected[done:]
        assert torch.equal(resumed.weight, whole.weight)
    assert not set(multiprocessing.active_children()) - set(before)


def test_a_resumed_run_resumes_again(tmp_path):
    whole = fit(tmp_path / "whole", max_steps=17)
    expected = record(tmp_path / "whole")
    for first in (3, AN_EPOCH, AN_EPOCH + 2):
        checkpoint = tmp_path / "whole" / f"{first:03d}-batch.ckpt"
        fit(tmp_path / f"{first}", checkpoint=checkpoint, max_steps=17)
        for done, again in checkpoints(tmp_path / f"{first}"):
            folder = tmp_path / f"{first}-{again.stem}"
            resumed = fit(folder, checkpoint=again, max_steps=17)
            assert record(folder) == expected[done:]
            assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize("steps", [StepSettings(batches=3), StepSettings(residues=30)])
@pytest.mark.parametrize("batch_size", [1, 3, 23])
def test_other_batches_begin_with_a_step_and_stay_with_their_epochs(tmp_path, steps, batch_size):
    """From each step of two epochs of seven batches to twelve, five, or three an epoch."""
    fit(tmp_path / "whole", steps=steps, max_epochs=2)
    now = sampler(batch_size, steps)
    assert len(now) != AN_EPOCH
    shares = sampler(steps=steps).shares
    after_step = [7 * e + place for e in range(2) for place, share in enumerate(shares(e), 1) if share.ends]
    for done, checkpoint in checkpoints(tmp_path / "whole"):
        if "batch" not in checkpoint.name or done not in after_step:  # ours are not written within a step
            continue
        folder = tmp_path / checkpoint.stem
        fit(folder, checkpoint=checkpoint, batch_size=batch_size, steps=steps, max_epochs=3)
        seen, whole = record(folder), lines_of(now, range(3))
        assert seen == whole[len(whole) - len(seen) :]
        epoch, place = divmod(len(whole) - len(seen), len(now))
        begins = [0] + [place for place, share in enumerate(now.shares(epoch), 1) if share.ends]
        assert place in begins
        part = done / AN_EPOCH
        assert epoch + place / len(now) >= part - 1e-9
        assert not any(part <= epoch + begin / len(now) < epoch + place / len(now) for begin in begins)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_reached_its_last_step_is_prolonged(tmp_path, accumulate):
    whole = fit(tmp_path / "whole", accumulate=accumulate, max_steps=12)
    expected = record(tmp_path / "whole")
    fit(tmp_path / "short", accumulate=accumulate, max_steps=5)
    ends = [one for one in checkpoints(tmp_path / "short") if "batch" not in one[1].name]
    assert ends
    for done, checkpoint in ends:
        folder = tmp_path / checkpoint.stem
        longer = fit(folder, accumulate=accumulate, checkpoint=checkpoint, max_steps=12)
        assert record(folder) == expected[done:]
        assert torch.equal(longer.weight, whole.weight)


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform != "linux", reason="forks two processes")
def test_two_ranks(tmp_path):
    two = {"devices": 2, "strategy": "ddp_fork", "max_steps": 7}
    fit(tmp_path / "whole", 1, **two)
    fit(tmp_path / "resumed", 1, checkpoint=tmp_path / "whole" / "003-batch.ckpt", **two)
    seen = [record(tmp_path / "whole", rank) for rank in range(2)]
    assert [len(one) for one in seen] == [7, 7]
    assert len({line.split()[1] for one in seen for line in one[:4]}) == AN_EPOCH  # one of 8 is a repetition
    assert [record(tmp_path / "resumed", rank) for rank in range(2)] == [one[3:] for one in seen]


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    """SIGKILL in mid-epoch, twice, with workers that had read ahead."""
    whole = fit(tmp_path / "whole", max_steps=17)
    seen, checkpoint = [], None
    for number, batches in enumerate((4, 6)):
        folder = tmp_path / f"killed-{number}"
        run = [sys.executable, __file__, str(folder), *([str(checkpoint)] if checkpoint else [])]
        with subprocess.Popen(run, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "."}) as process:
            deadline = time.monotonic() + 120
            while not (folder / "record.txt").exists() or len(record(folder)) < batches:
                assert process.poll() is None and time.monotonic() < deadline, "the run ended before it was killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        done, checkpoint = checkpoints(folder)[-1]
        assert done > len(seen)
        seen += record(folder)[: done - len(seen)]
    resumed = fit(tmp_path / "resumed", 2, checkpoint=checkpoint, max_steps=17)
    assert seen + record(tmp_path / "resumed") == record(tmp_path / "whole")
    assert torch.equal(resumed.weight, whole.weight)


def test_other_data_than_the_checkpoints_are_told(tmp_path, monkeypatch, caplog):
    fit(tmp_path / "whole", max_steps=9)
    checkpoint = tmp_path / "whole" / "004-batch.ckpt"
    fit(tmp_path / "same", checkpoint=checkpoint, max_steps=9)
    assert "differ from the checkpoint" not in caplog.text
    monkeypatch.setitem(globals(), "EXAMPLES", 15)
    fit(tmp_path / "other", checkpoint=checkpoint, max_steps=9)
    assert "differ from the checkpoint" in caplog.text
    assert len(record(tmp_path / "other")) == 5


if __name__ == "__main__":
    fit(Path(sys.argv[1]), 2, checkpoint=sys.argv[2] if len(sys.argv) > 2 else None, pause=0.1, max_steps=17)
