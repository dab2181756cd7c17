"""The batch that sampling is measured with."""

import pytest
import torch

from app.bench import sampling
from app.bench.case import AUTO, REFERENCE, Point


def runs(**seconds_by_size: float) -> sampling.Runs:
    """With these seconds a batch; a size that is not among them runs out of memory."""
    made = sampling.Runs(Point("sampling:tiny", "cpu", "float32", 6, None))
    known = {int(size[1:]): seconds for size, seconds in seconds_by_size.items()}

    def seconds(size: int) -> float:
        if size not in known:
            raise torch.OutOfMemoryError("no room")
        return known[size]

    made._seconds = seconds
    return made


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({"_1": 1.0, "_2": 1.1, "_4": 1.3}, 4),  # what fits
        ({"_1": 1.0, "_2": 1.1, "_4": 2.3, "_8": 2.4}, 2),  # what brings something
        ({"_1": 1.0}, 1),
    ],
)
def test_as_many_as_fit_and_bring_something(seconds, best):
    made = runs(**seconds)
    assert made.batch(AUTO) == made.batch("torch") == best
    assert made.batch(REFERENCE) == 1


def test_a_batch_that_was_asked_for_is_kept():
    made = sampling.Runs(Point("sampling:tiny", "cpu", "float32", 6, 3))
    assert made.batch(AUTO) == made.batch(REFERENCE) == 3


def test_seconds_are_of_one_design_of_all_steps():
    job = sampling.sampling_job(Point("sampling:tiny", "cpu", "float32", 6, 2))
    assert job.seconds(AUTO, 1.0) == pytest.approx(500 / sampling.MEASURED["cpu"] / 2)
    assert job.outputs(AUTO, torch.float32)["positions"].shape[-2:] == (6, 3)
    assert job.error(job.outputs(AUTO, torch.float32), job.outputs(REFERENCE, torch.float32)) < 1e-2
