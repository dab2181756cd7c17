"""Preprocessing in parallel: builds that are killed, workers that die, files left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from app.data import cache
from app.data.preprocess import Job, prepare_all
from app.data.structures import StructureDataset
from app.data.structures_settings import StructuresSettings
from tests.data.made_structures import write

ROOT = Path(__file__).resolve().parents[2]


def cached(tmp_path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}


def test_parallel_building_gives_the_same(tmp_path):
    paths = [write(tmp_path / "files" / f"{index}.pdb", 41 + index, seed=index) for index in range(9)]
    paths.append(tmp_path / "files" / "empty.pdb")
    paths[-1].touch()
    jobs = [Job(tmp_path / name, "separate") for name in ("cache", "other")]
    serial, parallel = (
        prepare_all(paths, job, processes, show_progress=False) for job, processes in zip(jobs, (1, 2), strict=True)
    )
    assert serial == parallel and "empty" in serial[-1].record["error"]
    for result in serial:
        (ours, _), (theirs, _) = (cache.load(cache.file_of(job.cache_dir, result.key)) for job in jobs)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_killed_build_goes_on_where_it_stopped(tmp_path):
    for index in range(12):
        write(tmp_path / "files" / f"{index}.pdb", 500, seed=index)
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from app.data import cache
from app.data.preprocess import Job, prepare_all
save = cache.save
cache.save = lambda *args: (time.sleep(0.3), save(*args))
prepare_all(sorted(Path({str(tmp_path / "files")!r}).iterdir()), Job(Path({str(tmp_path / "cache")!r}), "separate"), 1)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(cached(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = cached(tmp_path)
    assert 3 <= len(before) < 12
    dataset = StructureDataset(StructuresSettings(path=tmp_path / "files", cache_dir=tmp_path / "cache", workers=1))
    after = cached(tmp_path)
    assert len(dataset) == 12 and len(after) == 12
    assert {path: after[path] for path in before} == before, "what was there is not redone"


def test_workers_end_with_a_killed_parent(tmp_path):
    for index in range(10):
        write(tmp_path / "files" / f"{index}.pdb", 50, seed=index)
    script = tmp_path / "build.py"
    script.write_text(f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from app.data import preprocess
class Slow(preprocess.Job):
    @property
    def chains(self):
        import multiprocessing, os
        if multiprocessing.parent_process() is not None:
            Path({str(tmp_path)!r}, f"worker.{{os.getpid()}}").touch()
            time.sleep(600)
        return "separate"
    @chains.setter
    def chains(self, value): pass
if __name__ == "__main__":
    files = sorted(Path({str(tmp_path / "files")!r}).iterdir())
    preprocess.prepare_all(files, Slow(Path({str(tmp_path / "cache")!r}), "separate"), 2)
""")
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("worker.*"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("worker.*")]
    assert len(workers) == 2
    process.kill()
    process.wait()
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


class DeadlyPath:
    """Names a file whose reading kills any process but the one that made the path."""

    def __init__(self, path):
        self.path, self.owner = path, os.getpid()

    def __fspath__(self):
        if os.getpid() != self.owner:
            os._exit(9)
        return str(self.path)

    __str__ = __fspath__


def test_a_file_that_kills_its_worker_is_dropped_and_the_rest_is_made(tmp_path):
    paths = [write(tmp_path / f"{index}.pdb", 50, seed=index) for index in range(9)]
    paths[4] = DeadlyPath(paths[4])
    prepared = prepare_all(paths, Job(tmp_path / "cache", "separate"), processes=2, show_progress=False)
    errors = [result.record["error"] for result in prepared]
    assert "worker process died" in errors[4]
    assert [error for index, error in enumerate(errors) if index != 4] == [None] * 8


def test_leftovers_of_killed_writers_are_removed_once_old(tmp_path):
    fresh, old = (
        tmp_path / f"v{cache.FORMAT_VERSION}" / "ab" / f".{name}.safetensors.1.tmp" for name in ("fresh", "old")
    )
    fresh.parent.mkdir(parents=True)
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    cache.remove_leftovers(tmp_path)
    assert fresh.exists() and not old.exists()


def test_real_entries_on_two_cores_and_on_after_a_kill(shared, tmp_path):
    """Two processes share the work; after SIGKILL what was done is not done again."""
    folder, job = shared / "structures", Job(tmp_path / "cache", "separate")
    script = tmp_path / "build.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from app.data import cache
from app.data.preprocess import Job, prepare_all
save = cache.save
def noted(path, *args):
    save(path, *args)
    with open({str(tmp_path / "log")!r}, "a") as log:
        log.write(f"{{os.getpid()}} {{path.stem}}\\n")
cache.save = noted
if __name__ == "__main__":
    prepare_all(sorted(Path({str(folder)!r}).glob("*.gz")), Job(Path({str(tmp_path / "cache")!r}), "separate"), 2)
""")

    def done():
        return [line.split() for line in (tmp_path / "log").read_text().splitlines()] if log.exists() else []

    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(done()) < 16 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    workers = {int(pid) for pid, _ in done()}
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    before = cached(tmp_path)
    assert len(workers) == 2 and 16 <= len(before) < 47

    subprocess.run([sys.executable, script], stderr=subprocess.DEVNULL, check=True)
    names = [name for _, name in done()]
    assert len(cached(tmp_path)) == 47 and len(names) == len(set(names))
    assert {path: stamp for path, stamp in cached(tmp_path).items() if path in before} == before
    prepared = prepare_all(sorted(folder.glob("*.gz")), job, processes=1, show_progress=False)
    assert sum(len(one.record["examples"]) for one in prepared) == 130
