"""infer.py on several devices, as it is typed: two processes on the CPU. (Those that torchrun starts: test_kill.py.)"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.errors import UserError
from app.sampling.predict import trainer_of
from app.sampling.request import Request
from tests.factories import saved, tiny_module
from tests.sampling import lives
from tests.training.runs import one_thread

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["device=cpu", "devices=2", "samples_per_length=12", "max_batch_size=1", "formats=pdb"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tiny_module(), tmp_path_factory.mktemp("run") / "last.ckpt")


def start(checkpoint, out, *arguments):
    typed = {text.partition("=")[0]: text for text in (*ARGUMENTS, *arguments)}
    command = [sys.executable, str(ROOT / "infer.py"), f"ckpt={checkpoint}", f"out={out}", *typed.values()]
    return subprocess.Popen(command, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def child_of(process):
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def wait_for_journals(process, out):
    """Until both processes have made a design."""
    while not all((out / f".journal-{rank}.jsonl").exists() for rank in (0, 1)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def finished(process):
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the other process in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_counts_as_failed_and_the_others_go_on(checkpoint, tmp_path, number):
    out, arguments = tmp_path / "out", ["lengths=[30]", "steps=40"]
    process = start(checkpoint, out, *arguments)
    wait_for_journals(process, out)
    os.kill(child_of(process), number)
    status, said = finished(process)
    manifest = json.loads((out / "manifest.json").read_text())
    assert status == 1 and "Traceback" not in said, said
    assert (manifest["requested"], manifest["done"] + manifest["failed"]) == (12, 12)
    failed = [design for design in manifest["designs"] if design["status"] == "failed"]
    told = "the process on device 1 ended with status -9" if number == signal.SIGKILL else "interrupted"
    assert 0 < len(failed) < 6 and {design["error"] for design in failed} == {f"not run: {told}"}
    assert {design["id"] for design in failed} < {f"len30_{index}" for index in range(1, 12, 2)}

    status, said = finished(start(checkpoint, out, *arguments))
    assert status == 0 and f"{12 - len(failed)} of 12 designs are there already" in said, said
    status, said = finished(start(checkpoint, tmp_path / "alone", *arguments, "devices=1", "max_batch_size=8"))
    assert status == 0, said
    lives.hold(out, tmp_path / "alone", settled=True)
    first, second = (json.loads((one / "manifest.json").read_text()) for one in (out, tmp_path / "alone"))
    assert first["designs"] == second["designs"] and (first["devices"], second["devices"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the other process in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_first_process_ends_all_with_what_each_has_made(checkpoint, tmp_path, number, status):
    out = tmp_path / "out"
    process = start(checkpoint, out, "lengths=[30]", "steps=100")
    wait_for_journals(process, out)
    child = child_of(process)
    process.send_signal(number)
    returned, said = finished(process)
    assert returned == status and "Traceback" not in said, said
    assert "interrupted; the same command makes what is missing" in said
    assert not Path(f"/proc/{child}").exists()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["requested"] == manifest["done"] + manifest["failed"] == 12 and manifest["done"] >= 2
    assert {design["error"] for design in manifest["designs"]} == {None, "not run: interrupted"}
    assert [file.name for file in out.rglob(".*")] == [".manifest.json"]


@pytest.mark.parametrize(
    ("environment", "asked", "told"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, {}, "torchrun starts 2"),
        ({}, {"num_nodes": 2}, "num_nodes=2: start it by torchrun or SLURM on each of them"),
        ({}, {"devices": 2, "device": "mps"}, "device=mps is not available here"),
    ],
)
def test_numbers_of_processes_that_do_not_fit_are_refused(monkeypatch, tmp_path, environment, asked, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        trainer_of(Request(task="unconditional", lengths=[9], out=tmp_path / "out", **{"device": "cpu"} | asked))


def test_devices_are_a_number_or_all(tmp_path):
    asked = {"task": "unconditional", "lengths": [9], "out": tmp_path, "device": "cpu"}
    for devices in ("auto", -1, 1):
        assert trainer_of(Request(**asked, devices=devices)).world_size == 1
    assert trainer_of(Request(**asked, devices=3)).world_size == 3
    for wrong in (0, -2, "some", 1.5):
        with pytest.raises(ValueError, match="devices"):
            Request(**asked, devices=wrong)
