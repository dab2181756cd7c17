import pytest
import torch

from app.training.counts import Counts
from app.training.metrics import COLUMNS, LOSSES, LogMetrics, StratifiedMeans
from app.training.rank_states import of_all_ranks, restore
from app.training.run import train
from tests.factories import protein_batch
from tests.training.runs import arguments, rows


def outputs(structure_t, token_t, **losses):
    values = {name: torch.zeros(len(structure_t)) for name in LOSSES} | {k: torch.tensor(v) for k, v in losses.items()}
    return {"losses": values, "structure_t": torch.tensor(structure_t), "token_t": torch.tensor(token_t)}


def test_means_in_all_and_by_the_time_of_what_a_loss_judges():
    means = StratifiedMeans()
    losses = {"trans_loss": [1.0, 2.0, 6.0], "aatypes_loss": [3.0, 5.0, 10.0]}
    means.update(outputs([0.1, 0.3, 0.74], [0.8, 0.9, 0.01], **losses), protein_batch(3, 10))
    means.update(outputs([0.2], [1.0], trans_loss=[3.0], aatypes_loss=[4.0]), protein_batch(2, 20).map(lambda x: x[:1]))
    row = means.compute()
    assert row["examples"] == 4
    assert row["length"] == pytest.approx((3 * 10 + 20) / 4)
    assert row["trans_loss"] == pytest.approx(3) and row["aatypes_loss"] == pytest.approx(5.5)
    assert row["trans_loss_t0.00-0.25"] == pytest.approx(2)
    assert row["trans_loss_t0.25-0.50"] == pytest.approx(2)
    assert row["trans_loss_t0.50-0.75"] == pytest.approx(6)
    assert "trans_loss_t0.75-1.00" not in row  # no example
    assert row["aatypes_loss_t0.00-0.25"] == pytest.approx(10)
    assert row["aatypes_loss_t0.75-1.00"] == pytest.approx(4)  # t = 1 is in the last bin
    assert set(row) <= set(COLUMNS)


def test_the_sums_can_be_carried_over():
    first, second, whole = StratifiedMeans(), StratifiedMeans(), StratifiedMeans()
    steps = [(outputs([0.1, 0.6], [0.2, 0.9], trans_loss=[1.0, 2.5]), protein_batch(2, 9)) for _ in range(3)]
    for step in steps:
        whole.update(*step)
    for step in steps[:2]:
        first.update(*step)
    carried = of_all_ranks(first)
    assert first.compute()["examples"] == 4  # taking them changes nothing
    restore(second, carried)
    second.update(*steps[2])
    assert second.compute() == whole.compute()


def test_sums_of_another_number_of_ranks_are_taken_by_the_first():
    parts = {name: torch.rand(2, *tensor.shape) for name, tensor in of_all_ranks(StratifiedMeans()).items()}
    one = StratifiedMeans()
    restore(one, {name: part[:, 0] for name, part in parts.items()})
    assert torch.equal(one.sums, parts["sums"].sum(0)[0])
    restore(one, {name: part[0, 0] for name, part in parts.items()})  # as versions before had it: all ranks together
    assert torch.equal(one.counts, parts["counts"][0, 0])
    counts = Counts()
    restore(counts, {name: torch.tensor([2, 3]) for name in of_all_ranks(counts)})
    assert counts.compute() == {"residues_seen": 5, "skipped_nonfinite": 3, "skipped_oom": 3}


def test_sums_of_another_shape_or_version_are_left():
    means, log = StratifiedMeans(), LogMetrics(2)
    restore(means, {"sums": torch.ones(2, 2), "counts": torch.ones(2, 2)})
    assert not means.sums.any()
    log.load_state_dict({"logged_step": 4, "sums": torch.ones_like(means.sums), "counts": torch.ones_like(means.sums)})
    assert log.logged_step == 4 and log.means.sums.all() and not log.norms.metric_state["weight"].any()


def test_the_gradients_norm_is_that_before_clipping_and_a_mean_over_steps(tmp_path, monkeypatch):
    norms = []

    def clip(parameters, largest, norm):
        parameters = list(parameters)
        norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)

    monkeypatch.setattr("app.training.step.clip_grads_with_norm_", clip)
    more = ("trainer.max_steps=4", "trainer.log_every=2", "trainer.gradient_clip=0.01", "trainer.accumulate=2")
    train(arguments(tmp_path, *more, f"out={tmp_path / 'out'}"))
    found = [float(row["gradient_norm"]) for row in rows(tmp_path / "out")]
    assert found == pytest.approx([sum(norms[:2]) / 2, sum(norms[2:]) / 2], rel=1e-4)
    assert min(norms) > 0.01
