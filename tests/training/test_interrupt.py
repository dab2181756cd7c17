"""Signals that ranks of one run received, not all the same: all end alike."""

import signal
import sys

import pytest

from tests.training import runs
from tests.training.injected import Fault, on_two_ranks, said
from tests.training.test_skipped_together import two

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is set up by hand elsewhere"),
]


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("SIGTERM", "SIGUSR1", signal.SIGUSR1),
        ("SIGUSR1", "SIGTERM", signal.SIGUSR1),
        ("SIGINT", "SIGTERM", signal.SIGTERM),
        (None, "SIGTERM", signal.SIGTERM),
    ],
)
def test_one_signal_counts_on_all_ranks_and_all_stop_at_the_same_step(tmp_path, first, second, counts):
    """SIGUSR1 before others, whichever rank has it: by it the first one has the job queued again."""
    faults = [Fault(name, 2, rank, times=1) for rank, name in enumerate((first, second)) if name]
    assert on_two_ranks(faults, two(tmp_path, "ddp", "trainer.max_steps=6"), tmp_path) == [128 + counts] * 2
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 3
    assert "interrupted at step 3" in said(tmp_path) and "Traceback" not in said(tmp_path)
