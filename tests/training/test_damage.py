"""Checkpoints that were cut or altered anywhere: refused by name, never loaded as if right, and passed over."""

import os
import resource
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch

from app.cli.infer import infer
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.training import seal
from app.training.checkpoint import open_checkpoint
from app.training.checkpoint_io import WholeFiles
from app.training.run import train
from app.training.safe_load import Refused
from app.training.seal import Damaged
from tests.damage import damaged
from tests.training.runs import arguments


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 6 steps with checkpoints at 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    train(arguments(folder, "trainer.max_steps=6", "trainer.checkpoint_every=2", f"out={folder / 'out'}"))
    return folder / "out"


def regions(path: Path) -> dict[str, tuple[int, int]]:
    """The parts of an archive: its members, one of each kind, with the headers before them, and what follows them."""
    size, content = path.stat().st_size, path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members, directory = archive.infolist(), archive.start_dir
    starts = [*(member.header_offset for member in members), directory]
    of = {member.filename.partition("/")[2]: (a, b) for member, a, b in zip(members, starts, starts[1:], strict=False)}
    last = max((name for name in of if name.startswith("data/")), key=lambda name: int(name[5:]))
    end = content.rindex(b"PK\x05\x06")
    chosen = {name: of[name] for name in ("data.pkl", "byteorder", "data/0", last, "version")}
    rest = {"directory": (directory, end), "end record": (end, end + 22), "checksum": (end + 22, size)}
    return {"all tensors": (of["data/0"][0], of[last][1])} | chosen | {k: v for k, v in rest.items() if v[0] < v[1]}


def test_every_damage_is_told_by_the_name_of_the_file(finished, tmp_path):
    whole, path = finished / "checkpoints" / "last.ckpt", tmp_path / "a.ckpt"
    tried = 0
    for what, content in damaged(whole.read_bytes(), regions(whole), Random(0), 15):
        path.write_bytes(content)
        with pytest.raises((Damaged, Refused), match=r"a\.ckpt: ") as error:
            pytest.fail(f"{what}: loaded as {open_checkpoint(path)}")
        assert "\n" not in str(error.value)
        tried += 1
    assert tried > 250


@pytest.mark.parametrize("key", ["resume", "weights"])
def test_training_and_designing_refuse_it_and_leave_everything_as_it_was(finished, tmp_path, key):
    content = bytearray((finished / "checkpoints" / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ckpt: damaged, it does not match the checksum inside it"):
        train([f"{key}={tmp_path / 'a.ckpt'}", "trainer.max_steps=8", f"out={tmp_path / 'out'}"])
    with pytest.raises(UserError, match=r"a\.ckpt: damaged"):
        infer(
            [f"ckpt={tmp_path / 'a.ckpt'}", "lengths=[10]", "device=cpu", f"out={tmp_path / 'out'}"],
            EnvironmentSettings(),
        )
    assert not (tmp_path / "out").exists()


def test_anyone_can_verify_and_read_it(finished):
    last = finished / "checkpoints" / "last.ckpt"
    command = f"head -c -{seal.LENGTH} {last} | sha256sum"
    digest = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.split()[0]
    assert last.read_bytes().endswith(seal.MARK + digest.encode())
    assert torch.load(last, weights_only=True)["global_step"] == 6
    with zipfile.ZipFile(last) as archive:
        assert archive.comment == seal.MARK + digest.encode() and archive.testzip() is None


def unsealed(finished: Path, path: Path) -> Path:
    torch.save(torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True), path)
    return path


def test_one_without_a_checksum_loads_and_says_so(finished, tmp_path, caplog):
    open_checkpoint(finished / "checkpoints" / "last.ckpt")
    assert "checksum" not in caplog.text
    opened = open_checkpoint(unsealed(finished, tmp_path / "old.ckpt"))
    assert opened.step == 6 and "old.ckpt: holds no checksum" in caplog.text
    try:
        torch.serialization.set_crc32_options(False)
        opened = open_checkpoint(unsealed(finished, tmp_path / "older.ckpt"))
    finally:
        torch.serialization.set_crc32_options(True)
    assert opened.step == 6


def test_damage_to_one_without_a_checksum_is_noticed_or_changes_nothing(finished, tmp_path):
    """What an archive's own CRC-32 cover; the bytes between its members say nothing."""
    path = unsealed(finished, tmp_path / "old.ckpt")
    right = torch.load(path, weights_only=True)
    noticed = tried = 0
    for what, content in damaged(path.read_bytes(), regions(path), Random(1), 8):
        path.write_bytes(content)
        tried += 1
        try:
            opened = open_checkpoint(path)
        except UserError as error:
            noticed += 1
            assert "old.ckpt: " in str(error)
            continue
        for name, tensor in opened.module.state_dict().items():
            assert torch.equal(tensor, right["state_dict"][name]), what
        assert opened.step == 6, what
    assert noticed > 0.7 * tried


def test_multiflows_have_none_and_are_told_by_their_parts(shared, tmp_path):
    content = bytearray((shared / "legacy_multiflow" / "last.ckpt").read_bytes())
    assert open_checkpoint(shared / "legacy_multiflow" / "last.ckpt").step == 6
    content[len(content) // 2] ^= 1
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.ckpt: damaged, its part .* does not match its CRC-32"):
        open_checkpoint(tmp_path / "last.ckpt")


def failure(state, path) -> str:
    files = WholeFiles()
    files.save_checkpoint(state, path)
    return str(files.failed)


def test_a_disk_that_fills_up_anywhere_in_a_save_leaves_the_last_one(finished, tmp_path):
    """Writes that really fail, as the limit of a file's size lets them."""
    path = tmp_path / "last.ckpt"
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    WholeFiles().save_checkpoint(state, path)
    before, size = path.read_bytes(), path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 50, 100, 1000, size // 2, *range(size - 200, size, 13)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            assert "last.ckpt: cannot be written (File too large): make room" in failure(state, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_became_read_only_leaves_the_last_one(finished):
    """With the rights of a user who is not root, whom no folder stops."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    path = folder / "last.ckpt"
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    WholeFiles().save_checkpoint(state, path)
    before = path.read_bytes()
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        assert "last.ckpt: cannot be written (Permission denied): make room" in failure(state, path)
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert path.read_bytes() == before and [file.name for file in folder.iterdir()] == ["last.ckpt"]
    shutil.rmtree(folder)
