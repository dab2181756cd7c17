"""Two processes that train together, on the CPU."""

import json
import signal
import subprocess
import sys

import pytest

from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, rows
from tests.training.test_kill import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is set up by hand elsewhere"),
]
TWO = ("trainer.devices=2", "trainer.strategy=ddp")


def run(*command: str) -> str:
    with runs.in_own_process(*command) as process:
        out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    return out


def test_they_log_for_both_write_once_and_resume_exactly(tmp_path):
    made = arguments(tmp_path, *TWO, "trainer.log_every=3", "data.loader.num_workers=1")
    said = run(*made, "trainer.max_epochs=2", f"out={tmp_path / 'whole'}")
    assert said.count("done at step 8") == 1  # 7 batches an epoch, 4 on each rank, one of them twice
    assert [row["step"] for row in rows(tmp_path / "whole")] == ["3", "6", "8"]
    assert sum(int(row["examples"]) for row in rows(tmp_path / "whole")) in range(26, 31)
    run(*made, "trainer.max_steps=4", f"out={tmp_path / 'resumed'}")
    run(f"resume={tmp_path / 'resumed' / 'checkpoints' / 'last.ckpt'}", "trainer.max_steps=8")
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "resumed")
    whole, resumed = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "resumed"))
    assert whole | {"seconds": 0} == resumed | {"seconds": 0}
    seen = sum(int(row["examples"]) * float(row["length"]) for row in rows(tmp_path / "whole"))
    assert whole["residues_seen"] == pytest.approx(seen, rel=0.05)  # of both; padding is in the lengths, too


@pytest.mark.parametrize("ended", ["by a signal", "with an error"])
def test_the_first_is_not_killed_while_it_reports(tmp_path, ended):
    """Lightning kills it when another rank has ended with a status."""
    broken = ("optimizer.lr=1e30", "trainer.stop_after_skipped=2") if ended == "with an error" else ()
    out = tmp_path / "out"
    command = [sys.executable, str(runs.ROOT / "tests/training/slow_report.py"), f"out={out}"]
    command += arguments(tmp_path, *TWO, "trainer.log_every=1", *broken)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=runs.one_thread(), **pipes) as process:
        if not broken:
            wait_for(2, out, process)
            process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=300)
    if broken:
        assert process.returncode == 2 and "2 optimizer steps in a row were skipped" in error
    else:
        assert process.returncode == 128 + signal.SIGTERM and "interrupted at step" in said
    assert "Traceback" not in error and not (out / ".lock").exists()
