"""What every task of a SLURM job does. Little is imported: the memory that a job has is for training."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def task(arguments: Sequence[str]) -> int:
    """`train.py`, in a process of its own; its exit status.

    submitit would answer the signal that comes before a time limit by queueing the job again itself, from one task,
    while the others' ranks wait for that one: here it goes to all ranks as SIGUSR1, upon which train.py saves and has
    the job queued again. A run that a signal ended leaves no result, so that whoever waits goes on waiting.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # inherited: SLURM may send it to every process of a step
    process = subprocess.Popen([sys.executable, str(TRAIN), *arguments])
    passed_on = {signal.SIGUSR1: signal.SIGUSR1, signal.SIGUSR2: signal.SIGUSR1, signal.SIGTERM: signal.SIGTERM}
    for number, as_number in passed_on.items():
        signal.signal(number, lambda *_, as_number=as_number: process.send_signal(as_number))
    status = process.wait()
    if status < 0 or status > 128:
        sys.exit(128 - status if status < 0 else status)
    return status
