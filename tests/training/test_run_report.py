"""What a run's folder tells: summary.json, the log, curves.png, the state of the code; over interruptions too."""

import json
import os
import re
import signal
import subprocess

import pytest
import torch
import yaml
from PIL import Image

from app.errors import UserError
from app.report.panels import panels
from app.training import git_state
from app.training.counts import Counts
from app.training.csv_log import CsvLog
from app.training.curves import draw
from app.training.fit import LogMetrics
from app.training.metrics import COLUMNS
from app.training.rank_states import of_all_ranks, restore
from app.training.run import train
from app.training.run_report import RunReport, best
from tests.training import runs
from tests.training.runs import EPOCH, Crash, arguments, rows

KEYS = [
    "steps", "epochs", "residues_seen", "skipped_nonfinite", "skipped_oom", "dropped_examples", "best",
    "last_checkpoint", "seconds",
]  # fmt: skip
RESIDUES = 9 * 13 - 1  # of the chains that `runs.data` makes: 8, 9 or 10 long, the first of 8


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def resume(out, *more):
    return train([f"resume={out / 'checkpoints' / 'last.ckpt'}", *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("whole")
    more = ("trainer.max_epochs=2", "trainer.checkpoint_every=3", "trainer.log_every=2")
    made = [text for text in arguments(folder) if not text.startswith("callbacks.")]
    train([*made, *more, f"out={folder / 'out'}"])
    return folder


def test_the_summary_of_a_run(whole):
    told = summary(whole / "out")
    assert list(told) == KEYS
    assert (told["steps"], told["epochs"], told["residues_seen"]) == (2 * EPOCH, 2, 2 * RESIDUES)
    assert told["skipped_nonfinite"] == told["skipped_oom"] == told["dropped_examples"] == 0
    assert (whole / "out" / told["last_checkpoint"]).samefile(whole / "out/checkpoints/last.ckpt")
    lines = {int(row["step"]): float(row["train_loss"]) for row in rows(whole / "out")}
    assert told["best"] == {"metric": "train_loss", "step": min(lines, key=lines.get), "value": min(lines.values())}
    assert told["seconds"] > 0


@pytest.mark.parametrize("crashes", [(4, EPOCH + 3), (EPOCH,), (EPOCH - 1,)])
def test_counts_go_on_where_a_run_is_resumed(whole, tmp_path, monkeypatch, crashes):
    out = tmp_path / "out"
    more = ("trainer.max_epochs=2", "trainer.checkpoint_every=3", "trainer.log_every=2")
    seconds = 0.0
    for number, batch in enumerate(crashes):
        with monkeypatch.context() as patch, pytest.raises(Crash):
            runs.crash_at(batch, patch)
            resume(out) if number else train(arguments(whole, *more, f"out={out}"))
        assert summary(out)["last_checkpoint"] == f"checkpoints/step-{batch // 3 * 3:06d}.ckpt"
        assert summary(out)["epochs"] == batch // EPOCH
        state = runs.checkpoint(out)["callbacks"]["report"]
        assert state["seconds"] > seconds
        seconds = state["seconds"]
    resume(out)
    drop = dict.fromkeys(("seconds",))
    assert summary(out) | drop == summary(whole / "out") | drop
    assert summary(out)["seconds"] > seconds


def test_a_run_that_is_stopped_has_its_summary(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        runs.crash_at(2, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(arguments(tmp_path, "trainer.max_steps=6", f"out={out}")) == 130
    assert (summary(out)["steps"], summary(out)["epochs"]) == (3, 0)
    log = (out / "train.log").read_text().splitlines()
    assert "interrupted at step 3; go on by: python train.py resume=" in log[-1]


def test_the_log_keeps_what_was_said_from_the_first_word(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    train(arguments(tmp_path, "trainer.max_steps=2", "trainer.log_every=1", f"out={out}"))
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("preparing")]
    log = (out / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log)
    assert [line[20:] for line in log] == said
    with monkeypatch.context() as patch, pytest.raises(Crash):
        runs.crash_at(2, patch)
        resume(out, "trainer.max_steps=3")
    more = (out / "train.log").read_text().splitlines()
    assert more[: len(log)] == log and f"resuming {out}" in more[len(log) + 1] and more[-1].endswith("Crash")


def test_later_packages_count_in_one_place_and_over_ranks():
    counts, resumed = Counts(), Counts()
    counts.update(skipped_oom=1, residues_seen=torch.tensor(2**33))
    counts.update(skipped_oom=2)
    restore(resumed, of_all_ranks(counts))
    resumed.update(skipped_nonfinite=1, residues_seen=1)
    expected = {"residues_seen": 2**33 + 1, "skipped_nonfinite": 1, "skipped_oom": 3}
    assert resumed.compute() == expected


def test_the_best_line_is_of_validation_where_there_is_any(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv", ("train_loss", "validation_loss"))
    assert best(log.path) is None
    for step, (loss, validation) in enumerate([(3.0, None), (1.0, 2.5), (2.0, 2.0), (1.5, 2.25)], 1):
        log.log_metrics({"train_loss": loss, "validation_loss": validation}, step)
        expected = {"metric": "train_loss", "value": 3.0, "step": 1} if step == 1 else best(log.path)
        assert best(log.path) == expected
    assert best(log.path) == {"metric": "validation_loss", "value": 2.0, "step": 3}


def test_the_curves_are_a_picture(whole, tmp_path):
    with Image.open(whole / "out" / "curves.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
        colours = len(picture.convert("RGB").resize((200, 200)).getcolors(200 * 200))
    assert colours > 20
    CsvLog(tmp_path / "metrics.csv", COLUMNS).log_metrics({"train_loss": 2.0, "gradient_norm": 0.0, "lr": 1e-3}, 1)
    draw(tmp_path / "metrics.csv", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[1] < 500  # one row of panels
    with pytest.raises(UserError, match="cannot be written"):
        draw(tmp_path / "metrics.csv", tmp_path / "metrics.csv" / "curves.png")


def test_the_report_has_them_too(whole):
    text = (whole / "out" / "report.html").read_text()
    assert "Losses" in text and "train_loss" in text and f"{2 * RESIDUES:,}" in text


def test_what_is_validated_and_designed_has_its_panels():
    names = ["train_loss", "trans_loss", "trans_loss_t0.00-0.25", "validation_loss", "validation_trans_loss_t0.10"]
    names += [
        "validation_examples",
        "validation_seconds",
        "designs_helix",
        "designs_clashes",
        "inverse_folding_recovery",
    ]
    assert panels(names) == {
        "loss": ["train_loss", "trans_loss"],
        "validation": ["train_loss", "validation_loss"],
        "trans_loss by time": ["trans_loss_t0.00-0.25"],
        "validation_trans_loss by time": ["validation_trans_loss_t0.10"],
        "designs": ["designs_helix"],
        "folding": ["inverse_folding_recovery"],
        "designs_clashes": ["designs_clashes"],
    }


def test_they_can_be_left_out(tmp_path):
    train(arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out/curves.png").exists() and not (tmp_path / "out/report.html").exists()
    assert LogMetrics(1).logged_step is None


# The state of the code


def git(folder, *typed):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "-C", str(folder), *typed], check=True, capture_output=True)


@pytest.fixture
def code(tmp_path):
    """A repository with a file of the code."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").write_text("")
    git(tmp_path, "init", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_the_commit_and_what_differs_from_it(code):
    found = git_state.git_state(code)
    assert re.fullmatch("[0-9a-f]{40}", found["commit"]) and (found["branch"], found["changed"]) == ("trunk", [])
    (code / "app/__init__.py").write_text("1")
    (code / "app/new.py").write_text("")
    git_state.git_state.cache_clear()
    assert sorted(git_state.git_state(code)["changed"]) == ["app/__init__.py", "app/new.py"]
    git(code, "checkout", "-d")
    git_state.git_state.cache_clear()
    assert git_state.git_state(code)["branch"] is None


def test_code_that_is_in_no_repository_has_no_state(code, tmp_path_factory, monkeypatch):
    installed = code / "site-packages"
    (installed / "app").mkdir(parents=True)
    (installed / "app/__init__.py").write_text("")
    assert git_state.git_state(installed) is None  # within somebody else's
    assert git_state.git_state(tmp_path_factory.mktemp("alone")) is None
    monkeypatch.setenv("PATH", "")
    git_state.git_state.cache_clear()
    assert git_state.git_state(code) is None


def test_machine_yaml_tells_the_state_of_the_code_and_lightnings_version(whole):
    told = yaml.safe_load((whole / "out/machine.yaml").read_text())
    now = git_state.git_state()  # the same, unless somebody commits meanwhile
    assert (now or {}).keys() == (told["git"] or {}).keys()
    assert told["versions"]["lightning"] and told["versions"]["torch"] == str(torch.__version__)


def test_a_run_killed_right_after_its_last_checkpoint_is_told_of_in_full(whole, tmp_path, monkeypatch):
    made = arguments(whole, "trainer.max_steps=6", "trainer.checkpoint_every=3", "trainer.log_every=2")
    command = [*made, "resume=auto", f"out={tmp_path / 'out'}"]
    with monkeypatch.context() as patch, pytest.raises(Crash):
        write = RunReport._write

        def killed(self, trainer):
            if trainer.global_step == 6:
                raise Crash
            write(self, trainer)

        patch.setattr(RunReport, "_write", killed)
        train(command)
    assert summary(tmp_path / "out")["steps"] == 3
    assert train(command) == 0
    told = summary(tmp_path / "out")
    assert list(told) == KEYS
    assert (told["steps"], told["last_checkpoint"]) == (6, "checkpoints/step-000006.ckpt")
    seen = sum(int(row["examples"]) * float(row["length"]) for row in rows(tmp_path / "out"))
    assert told["residues_seen"] == pytest.approx(seen, rel=1e-6)


@pytest.mark.slow
def test_a_run_killed_while_it_draws_has_its_curves_all_the_same(whole, tmp_path, monkeypatch):
    made = [text for text in arguments(whole, "trainer.max_steps=4", "resume=auto") if text != "callbacks.curves=false"]
    command, curves = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "curves.png"

    def killed(*_):
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(RunReport, "_draw", killed)
        train(command)
    assert summary(tmp_path / "out")["steps"] == 4 and not curves.exists()
    assert train(command) == 0
    drawn = curves.stat().st_mtime_ns
    assert train(command) == 0
    assert curves.stat().st_mtime_ns == drawn


def test_what_is_not_finite_is_never_the_best(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train_loss\n1,nan\n2,3.0\n3,inf\n4,nan\n")
    assert best(tmp_path / "metrics.csv") == {"metric": "train_loss", "value": 3.0, "step": 2}
    (tmp_path / "metrics.csv").write_text("step,train_loss\n1,nan\n")
    assert best(tmp_path / "metrics.csv") is None
