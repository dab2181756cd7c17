"""The loop never waits for the device: on the stand-in of a Mac, every number that goes either way can be seen."""

import sys
from itertools import pairwise

import pytest
import torch

from app.sampling import sample
from tests.factories import tiny_model
from tests.mac import MacTensor, StandIn
from tests.model.esm.made_esm import write_esm
from tests.sampling.recorder import every_sampler, every_task, given


class Traffic(StandIn):
    """Counts, by step, tensors that go to the host and come from it, and numbers that the host looks at."""

    def __init__(self):
        super().__init__()
        self.counts = {"to host": 0, "from host": 0, "looked at": 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        there = [isinstance(value, MacTensor) for value in args]
        if name == "_to_copy" and kwargs.get("device") is not None:
            to_host = torch.device(kwargs["device"]).type == "cpu"
            if to_host and there[0]:
                self.counts["to host"] += 1
            elif not to_host and not there[0]:
                self.counts["from host"] += 1
        elif name == "copy_" and there[0] != there[1]:
            self.counts["from host" if there[0] else "to host"] += 1
        elif name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal") or _masked(name, args):
            self.counts["looked at"] += any(there) or _masked(name, args)
        return super().__torch_dispatch__(func, types, args, kwargs)


def _masked(name: str, args) -> bool:
    """Indexing by a mask, whose result's size only the numbers tell."""
    return name in ("index", "index_put_", "_index_put_impl_") and any(
        isinstance(index, MacTensor) and index.dtype == torch.bool for index in args[1] if index is not None
    )


@pytest.fixture
def traffic(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with Traffic() as traffic:
        yield traffic


def in_the_loop(traffic, esm: dict | None = None, **how) -> list[dict[str, int]]:
    """What went by between one call of the model and the next."""
    seen = []
    model = tiny_model(**({"esm": esm} if esm else {})).to("mps")
    sample(model, on_step=lambda call: seen.append(dict(traffic.counts)), **how)
    return [{name: after[name] - before[name] for name in after} for before, after in pairwise(seen)]


@every_task
@every_sampler
def test_nothing_passes_between_steps(traffic, task, sampler):
    loop = in_the_loop(traffic, task=task, sampler=sampler, steps=6, keep_path=False, **given(task))
    assert loop == [{"to host": 0, "from host": 0, "looked at": 0}] * 5


@pytest.mark.parametrize(("backend", "mode"), [("faplm", "node"), ("transformers", "node_and_edge")])
@every_task
def test_nor_with_a_language_model(tmp_path, task, backend, mode):
    esm = {"kind": "esm2", "name": str(write_esm(tmp_path / "esm")), "backend": backend, "mode": mode}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        patched.setattr(torch.backends.mps, "is_available", lambda: True)
        with Traffic() as traffic:
            loop = in_the_loop(traffic, esm, task=task, steps=4, keep_path=False, **given(task))
    assert loop == [{"to host": 0, "from host": 0, "looked at": 0}] * 3


def test_the_way_is_sent_off_where_it_is_asked_for(traffic):
    loop = in_the_loop(traffic, steps=6, keep_path=True, lengths=[9, 6])
    assert loop == [{"to host": 8, "from host": 0, "looked at": 0}] * 5  # four tensors of the path, four of the clean


@pytest.mark.parametrize("keep", [True, False])
def test_the_way_is_read_once_all_of_it_has_arrived(monkeypatch, keep):
    """As on a GPU, where nobody waits for the copies: they are made when the device is waited for."""
    trajectory = sys.modules["app.sampling.trajectory"]
    on_their_way, how = [], {"steps": 6, "keep_path": keep, "lengths": [9, 6]}
    expected = sample(tiny_model(), **how)

    def wait_for(device):
        for tensor, into in on_their_way:
            into.copy_(tensor)
        on_their_way.clear()

    monkeypatch.setattr(trajectory, "host_buffer", lambda shape, like: torch.zeros(shape, dtype=like.dtype))
    monkeypatch.setattr(trajectory, "fetch", lambda tensor, into: on_their_way.append((tensor.clone(), into)))
    monkeypatch.setattr(trajectory, "wait_for", wait_for)
    found = sample(tiny_model(), **how)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name
    assert not on_their_way


def test_the_traffic_is_seen(traffic):
    x = torch.ones(3).to("mps")
    x.cpu(), x.sum().item(), x[x > 0], torch.zeros(3).copy_(x)
    assert traffic.counts == {"to host": 2, "from host": 1, "looked at": 2}
