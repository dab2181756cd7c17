"""Steps that were skipped for bad numbers, run again from their file."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from app.cli.replay import replay as command
from app.errors import UserError
from app.training import replay_file
from app.training.module import CodesignModule
from app.training.passes import Place
from app.training.replay import Replayed, Row, replay
from app.training.run import train
from app.training.watch import FirstNotFinite, watched
from tests.training import runs
from tests.training.injected import LINEAR, Fault, inject
from tests.training.runs import ROOT, arguments, one_thread

CPU = torch.device("cpu")


def replayed(path):
    return replay(replay_file.read(path), CPU)


@pytest.mark.parametrize("where", ["module", "gradient"])
def test_the_module_where_it_begins_is_found(tmp_path, monkeypatch, where):
    """Of two batches, accumulated, with dropout and self-conditioning as they were."""
    out = tmp_path / "out"
    more = ("trainer.accumulate=2", "trainer.max_steps=2", "flow.self_condition_share=1", "trainer.log_every=1")
    present = inject([Fault(where, 3)], monkeypatch)
    train(arguments(tmp_path, *more, f"out={out}"))
    (path,) = (out / "replay").glob("*")
    assert path.name == "step-000002.ckpt"
    seen = {place: batch for place, batch in present.seen.items() if place.batch in (2, 3)}
    found = replayed(path)
    assert not found.finite and LINEAR in found.verdict()
    assert (found.first.forward is not None) == (where == "module")
    assert [(row.place, row.name) for row in found.rows] == [
        (place, name) for place, batch in seen.items() for name in batch.names
    ]
    monkeypatch.undo()
    healed = replayed(path)
    assert healed.finite and "could not be reproduced" in healed.verdict()
    if where == "gradient":  # the losses had been right, and were logged
        mean = sum(row.losses["train_loss"] for row in healed.rows) / len(healed.rows)
        assert float(runs.rows(out)[1]["train_loss"]) == pytest.approx(mean, rel=1e-5)
        assert [row.losses for row in healed.rows] == [row.losses for row in found.rows]


def test_the_last_few_are_kept_and_one_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch, capsys):
    inject([Fault("loss", batch) for batch in range(5)], monkeypatch)
    train(arguments(tmp_path, "trainer.max_steps=6", f"out={tmp_path / 'out'}"))
    names = sorted(path.name for path in (tmp_path / "out" / "replay").iterdir())
    assert names == [f"step-{step:06d}.ckpt" for step in (3, 4, 5)]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "replay").write_text("in the way")
    train(arguments(tmp_path, "trainer.max_steps=2", f"out={tmp_path / 'other'}"))
    said = capsys.readouterr().out
    assert "warning: " in said and "step-000001.ckpt: cannot be written" in said


def test_the_command(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        inject([Fault("loss", 0)], patch)
        train(arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}"))
    path, last = tmp_path / "out/replay/step-000001.ckpt", tmp_path / "out/checkpoints/last.ckpt"
    (tmp_path / "cut.ckpt").write_bytes(path.read_bytes()[:-1000])
    done = subprocess.run(
        [sys.executable, "-m", "app", "replay", str(path), "device=cpu"],
        cwd=ROOT, env=one_thread(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step 1, on cpu: all losses and gradients are finite here" in done.stdout
    names = replay_file.read(path).batches[0][1].names
    assert all(word in done.stdout for word in ("losses of", "residues", "trans", "train", *names))
    for given, says in {
        (last,): "no step to replay",
        (tmp_path / "cut.ckpt",): "damaged",
        (tmp_path / "none.ckpt",): "no such checkpoint",
        (path, "device=tpu"): "device=tpu is unknown",
        (path, "length=3"): "length: unknown here",
    }.items():
        with pytest.raises(UserError, match=says):
            command(given[0], list(given[1:]))
    with pytest.raises(UserError, match="holds weights, but no optimizer state"):
        train([f"resume={path}", f"out={tmp_path / 'again'}"])


@pytest.mark.parametrize("width", [80, None])
def test_names_are_told_whole(tmp_path, monkeypatch, capsys, width):
    """Folded at a terminal, in one line otherwise."""
    name = "AF-A0A009IHW8-F1-model_v4_[chain_A]:dna:" + "0123456789" * 10
    row = Row(Place(0, 0, 0), name, 128, dict.fromkeys("abcdefgh", 1.0))
    monkeypatch.setattr("app.training.replay_file.read", lambda file: SimpleNamespace(device="cpu", step=3))
    found = Replayed([row], FirstNotFinite(), finite=True)
    monkeypatch.setattr("app.training.replay.replay", lambda *_: found)
    for key, value in ({"FORCE_COLOR": "1", "COLUMNS": "80", "LINES": "20"} if width else {}).items():
        monkeypatch.setenv(key, value)
    command(tmp_path)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    if width is None:
        assert any(name in line for line in lines)
    else:
        assert name in "".join(line.split()[0] for line in lines if line.strip())


def test_a_batch_comes_back_as_it_was_and_what_is_none_is_refused(tmp_path, monkeypatch):
    present = inject([Fault("loss", 1)], monkeypatch)
    train(arguments(tmp_path, "trainer.max_steps=2", f"out={tmp_path / 'out'}"))
    ((place, batch),) = replay_file.read(tmp_path / "out/replay/step-000002.ckpt").batches
    assert place == Place(0, 1, 0)
    for name, value in vars(present.seen[place]).items():
        found = getattr(batch, name)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value
    saved = torch.load(tmp_path / "out/replay/step-000002.ckpt", weights_only=True)
    for spoil in (
        lambda kept: kept.pop("trans_1"),
        lambda kept: kept.update(number="one"),
        lambda kept: kept.update(names=[]),
        lambda kept: kept.update(res_mask=torch.ones(9, 9)),
    ):
        spoilt = {**saved, "replay": {**saved["replay"], "ranks": {0: [dict(saved["replay"]["ranks"][0][0])]}}}
        spoil(spoilt["replay"]["ranks"][0][0])
        torch.save(spoilt, tmp_path / "spoilt.ckpt")
        with pytest.raises(UserError, match="damaged, its step cannot be read"):
            replay_file.read(tmp_path / "spoilt.ckpt")


class Squares(nn.Module):
    def __init__(self, broken: str):
        super().__init__()
        self.broken = broken
        self.first, self.second, self.third = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        hidden = self.second(self.first(x))
        if self.broken == "output":
            hidden = hidden / 0
        if self.broken == "gradient":
            hidden = hidden + 0 * (hidden - hidden).norm(dim=-1, keepdim=True).sqrt()  # finite, its gradient is not
        return self.third(hidden)


@pytest.mark.parametrize(("broken", "forward", "backward"), [
    ("", None, None), ("output", "third (Linear)", "third (Linear)"), ("gradient", None, "second (Linear)"),
])  # fmt: skip
def test_the_first_in_the_order_of_each_pass(broken, forward, backward):
    model = Squares(broken)
    with watched(model) as found:
        model(torch.randn(4, 3)).square().sum().backward()
    assert found.forward == forward
    if broken != "output":
        assert found.backward == backward
    assert not model.first._forward_hooks


def test_gradients_that_are_finite_and_too_large_to_add_up(tmp_path, monkeypatch):
    outputs = CodesignModule.outputs

    def huge(self, *given):
        out = outputs(self, *given)
        return out | {"loss": 1e22 * out["loss"]}

    monkeypatch.setattr(CodesignModule, "outputs", huge)
    train(arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}"))
    found = replayed(tmp_path / "out" / "replay" / "step-000001.ckpt").verdict()
    assert found.startswith("all numbers are finite, but too large for the gradient's norm, most of all that of model.")
