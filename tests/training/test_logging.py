"""What a run says while it runs, and to which loggers."""

import re
import sys
from io import StringIO

import pytest
from rich.console import Console

from app.errors import UserError
from app.training import fit, progress, run
from app.training.plan import plan_of
from app.training.run import train
from tests.training.runs import arguments, rows


def test_without_a_limit_it_says_so(tmp_path, capsys):
    planned = plan_of(arguments(tmp_path, f"out={tmp_path / 'out'}"))
    run.announce(planned, *run.build_module(planned))
    assert "until stopped: neither trainer.max_steps nor trainer.max_epochs is given" in capsys.readouterr().out


def test_tensorboard_beside_the_csv_and_missing_packages(tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "out"
    train(arguments(tmp_path, "logger=tensorboard", "trainer.log_every=1", "trainer.max_steps=2", f"out={out}"))
    train([f"resume={out}/checkpoints/last.ckpt", "trainer.max_steps=3"])
    events = event_accumulator.EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3]
    assert [row["step"] for row in rows(out)] == ["1", "2", "3"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"logger=wandb: .* pip install -e '\.\[loggers\]'"):
        train(arguments(tmp_path, "logger=wandb", f"out={tmp_path / 'other'}"))
    assert not (tmp_path / "other").exists()


def test_the_bar_shows_steps_loss_length_and_batch(tmp_path, monkeypatch):
    terminal = Console(file=StringIO(), force_terminal=True, width=140)
    monkeypatch.setattr(progress, "console", terminal)
    monkeypatch.setattr(fit, "console", terminal)
    monkeypatch.setattr(progress.StepBar, "INTERVAL", 0)
    train(arguments(tmp_path, "trainer.max_epochs=1", "trainer.accumulate=2", f"out={tmp_path / 'out'}"))
    shown = terminal.file.getvalue()
    assert "4/4" in shown
    assert re.search(r"epoch 0  loss \d+\.\d{3}  length (8|9|10)  batch [12]", shown)


def test_no_bar_and_no_lines_when_switched_off(tmp_path, capsys):
    train(
        arguments(
            tmp_path,
            "callbacks.progress_bar=false",
            "trainer.log_every=1",
            "trainer.max_steps=2",
            f"out={tmp_path / 'out'}",
        )
    )
    assert "step 1 " not in capsys.readouterr().out
