"""The index of a folder: what it saves, and what it must notice."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app.data import index, preprocess
from app.data.find import find_files
from app.data.index import open_index
from app.data.preprocess import Job
from app.data.structures import StructureDataset
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from tests.data.made_structures import write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_SETTLED", -(10**18))  # files of a moment ago are believed
    write(tmp_path / "files" / "one.pdb", 50)
    write(tmp_path / "files" / "sub" / "two.pdb", 60, 30, seed=1)
    (tmp_path / "files" / "empty.cif").touch()
    (tmp_path / "files" / "notes.txt").touch()
    return tmp_path / "files"


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "cache", "separate")


@pytest.fixture
def read(monkeypatch):
    """Names of the structure files that were read."""
    names = []
    real = preprocess.read_bytes
    monkeypatch.setattr(preprocess, "read_bytes", lambda path: names.append(path.name) or real(path))
    return names


def opened(folder, job):
    return open_index(find_files(folder), job, processes=1, show_progress=False)


def assert_same(one, other):
    assert (one.files, one.errors, one.notes, one.chains) == (other.files, other.errors, other.notes, other.chains)
    assert one.sequences == other.sequences
    for name in ("keys", "source", "lengths", "unknown", "places"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_says_what_the_files_hold(folder, job):
    found = opened(folder, job)
    assert found.files == ["empty.cif", "one.pdb", "sub/two.pdb"] and "empty" in found.errors[0]
    assert found.lengths.tolist() == [50, 60, 30] and found.source.tolist() == [1, 2, 2]
    assert found.places.tolist() == [0, 0, 1] and found.chains == ["A", "A", "B"]
    assert found.sequences == ["A" * 50, "A" * 60, "A" * 30]


def test_what_did_not_change_is_not_read_again(folder, job, read):
    first = opened(folder, job)
    assert sorted(set(read)) == ["empty.cif", "one.pdb", "two.pdb"]
    read.clear()
    assert_same(opened(folder, job), first)
    assert not read


def test_changes_are_noticed_and_nothing_else_is_read(folder, job, read):
    opened(folder, job)
    read.clear()
    write(folder / "one.pdb", 50, aatype=3, seed=9)  # of the same size
    write(folder / "more.pdb", 45)
    (folder / "empty.cif").unlink()
    changed = opened(folder, job)
    assert set(read) == {"one.pdb", "more.pdb"}
    assert changed.files == ["more.pdb", "one.pdb", "sub/two.pdb"] and changed.lengths.tolist() == [45, 50, 60, 30]
    assert changed.sequences[1] == "D" * 50 and changed.errors == ["", "", ""]
    assert_same(changed, opened(folder, Job(folder.parent / "another cache", "separate")))


def test_a_file_of_just_now_is_not_believed_yet(folder, job, read, monkeypatch):
    monkeypatch.setattr(index, "_SETTLED", 3600 * 10**9)
    first = opened(folder, job)
    read.clear()
    assert_same(opened(folder, job), first)
    assert len(set(read)) == 3


def test_a_file_that_could_not_be_opened_is_tried_again(folder, job, monkeypatch):
    real = preprocess.read_bytes

    def refuse(path):
        if path.name == "one.pdb":
            raise UserError(f"{path}: cannot be read: Permission denied")
        return real(path)

    monkeypatch.setattr(preprocess, "read_bytes", refuse)
    assert opened(folder, job).errors[1] == "cannot be read: Permission denied"
    monkeypatch.undo()
    assert opened(folder, job).errors[1] == ""


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_index_is_made_anew(folder, job, read, damage):
    first = opened(folder, job)
    (file,) = (folder.parent / "cache").rglob("*.index")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x10
    file.write_bytes({"cut": content[:-7], "flip": content, "empty": b"", "foreign": b"PK" + content}[damage])
    read.clear()
    assert_same(opened(folder, job), first)
    assert len(set(read)) == 3
    read.clear()
    assert_same(opened(folder, job), first)
    assert not read


def test_chains_together_have_an_index_of_their_own(folder, job):
    opened(folder, job)
    together = opened(folder, Job(job.cache_dir, "together"))
    assert together.sequences[1] == "A" * 60 + "/" + "A" * 30 and together.lengths.tolist() == [50, 90]
    assert len(list(job.cache_dir.rglob("*.index"))) == 2


def test_cached_forms_that_are_gone_are_made_anew_when_they_are_needed(folder, job):
    settings = StructuresSettings(path=folder, cache_dir=job.cache_dir, workers=1, min_length=10)
    whole = [StructureDataset(settings)[index]["trans_1"] for index in range(3)]
    for path in job.cache_dir.rglob("*.safetensors"):
        path.unlink()
    dataset = StructureDataset(settings)
    assert all(torch.equal(dataset[index]["trans_1"], trans) for index, trans in enumerate(whole))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory from /proc")
def test_200_000_chains_open_in_ten_seconds_and_a_gigabyte(tmp_path, monkeypatch):
    for number in range(200):
        (tmp_path / "files" / f"{number:03d}").mkdir(parents=True)
        for chain in range(1000):
            (tmp_path / "files" / f"{number:03d}" / f"x{number:03d}{chain:03d}.cif.gz").touch()
    random = np.random.default_rng(0)
    lengths = random.integers(40, 512, 200_000).tolist()
    letters = "".join(random.choice(list("ARNDCQEGHILKMFPSTWYV"), 512))
    made = [
        preprocess.Prepared(f"{number:064x}", {"notes": [], "error": None, "examples": [
            {"chain": "A", "length": length, "unknown": 0, "sequence": letters[:length]}
        ]})
        for number, length in enumerate(lengths)
    ]  # fmt: skip
    monkeypatch.setattr(index, "_SETTLED", -(10**18))
    monkeypatch.setattr(index, "prepare_all", lambda *_: made)
    opened(tmp_path / "files", Job(tmp_path / "cache", "separate"))
    data = {"kind": "structures", "path": str(tmp_path / "files"), "cache_dir": str(tmp_path / "cache")}
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from app.data.datamodule import ProteinDataModule
import app.data.structures
began = time.process_time()  # of this process: other work on the machine does not count
data = ProteinDataModule({data!r})
data.setup()
batches = data.batches_per_epoch()
seconds = time.process_time() - began
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))  # not its parent's
print(seconds, peak, len(data.dataset), batches)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    seconds, kilobytes, examples, batches = map(float, told.split())
    assert seconds < 10 and kilobytes < 1e6 and examples == 200_000 and batches > 1000


def test_one_file_leaves_the_index_of_its_folder_alone(folder, job, read):
    whole = opened(folder, job)
    read.clear()
    assert opened(folder / "one.pdb", job).files == ["one.pdb"]
    assert_same(opened(folder, job), whole)
    assert not read


def test_what_cannot_be_looked_at_is_named_and_passed_over(folder, monkeypatch):
    """A subfolder that only root may list, and a file that goes away while the folder is gone through."""
    (folder / "lost+found").mkdir()
    (folder / "gone.pdb").touch()
    real = os.scandir

    class Gone:
        name, path = "gone.pdb", str(folder / "gone.pdb")

        def is_dir(self, follow_symlinks):
            return False

        def is_file(self):
            return True

        def stat(self):
            raise FileNotFoundError(2, "No such file or directory", self.path)

    def scandir(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return [Gone() if entry.name == "gone.pdb" else entry for entry in real(path)]

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_files(folder)
    assert found.names == ["empty.cif", "one.pdb", "sub/two.pdb"]
    assert found.unreadable == [("gone.pdb", "No such file or directory"), ("lost+found/", "Permission denied")]
    with pytest.raises(UserError, match=r"lost\+found: cannot be listed \(Permission denied\); mend its permissions"):
        find_files(folder / "lost+found")
