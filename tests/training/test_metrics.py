import pytest
import torch

from app.training.metrics import COLUMNS, LOSSES, StratifiedMeans
from tests.factories import protein_batch


def outputs(structure_t, token_t, **losses):
    values = {name: torch.zeros(len(structure_t)) for name in LOSSES} | {k: torch.tensor(v) for k, v in losses.items()}
    return {"losses": values, "structure_t": torch.tensor(structure_t), "token_t": torch.tensor(token_t)}


def test_means_in_all_and_by_the_time_of_what_a_loss_judges():
    means = StratifiedMeans()
    losses = {"trans_loss": [1.0, 2.0, 6.0], "aatypes_loss": [3.0, 5.0, 10.0]}
    means.update(outputs([0.1, 0.3, 0.74], [0.8, 0.9, 0.01], **losses), protein_batch(3, 10))
    means.update(outputs([0.2], [1.0], trans_loss=[3.0], aatypes_loss=[4.0]), protein_batch(2, 20).map(lambda x: x[:1]))
    row = means.compute()
    assert row["examples"] == 4 and row["residues"] == 50
    assert row["length"] == pytest.approx((3 * 10 + 20) / 4)
    assert row["trans_loss"] == pytest.approx(3) and row["aatypes_loss"] == pytest.approx(5.5)
    assert row["trans_loss_t0.00-0.25"] == pytest.approx(2)
    assert row["trans_loss_t0.25-0.50"] == pytest.approx(2)
    assert row["trans_loss_t0.50-0.75"] == pytest.approx(6)
    assert "trans_loss_t0.75-1.00" not in row  # no example
    assert row["aatypes_loss_t0.00-0.25"] == pytest.approx(10)
    assert row["aatypes_loss_t0.75-1.00"] == pytest.approx(4)  # t = 1 is in the last bin
    assert set(row) - {"residues"} <= set(COLUMNS)


def test_the_sums_can_be_carried_over():
    first, second, whole = StratifiedMeans(), StratifiedMeans(), StratifiedMeans()
    steps = [(outputs([0.1, 0.6], [0.2, 0.9], trans_loss=[1.0, 2.5]), protein_batch(2, 9)) for _ in range(3)]
    for step in steps:
        whole.update(*step)
    for step in steps[:2]:
        first.update(*step)
    carried = first.of_all_ranks()
    assert first.compute()["examples"] == 4  # taking them changes nothing
    second.restore(carried)
    second.update(*steps[2])
    assert second.compute() | {"residues": 0} == whole.compute() | {"residues": 0}


def test_sums_of_another_number_of_ranks_are_taken_by_the_first():
    parts = {name: torch.rand(2, *tensor.shape) for name, tensor in StratifiedMeans().of_all_ranks().items()}
    one = StratifiedMeans()
    one.restore({name: part[:, 0] for name, part in parts.items()})
    assert torch.equal(one.sums, parts["sums"].sum(0)[0])
    one.restore({name: part[0, 0] for name, part in parts.items()})  # as versions before had it: of all ranks together
    assert torch.equal(one.counts, parts["counts"][0, 0])
