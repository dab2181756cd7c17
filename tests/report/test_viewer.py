"""Getting hold of 3Dmol.js: from a tarball or a file, by npm, and only what the checksums say it is."""

import gzip
import hashlib
import io
import tarfile

import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.errors import UserError
from app.report import viewer, write
from tests.report import made_run

CODE = b"/* 3Dmol */ window.$3Dmol = '</script><!--';"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A tarball as npm packs it, with a script of our own and its checksums."""
    path = tmp_path / "3dmol-2.5.5.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in ((viewer._IN_PACKAGE[0], CODE), (viewer._IN_PACKAGE[1], b"BSD"), ("../evil", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(viewer, "SHA256", hashlib.sha256(CODE).hexdigest())
    digest = hashlib.sha512(path.read_bytes()).digest()
    monkeypatch.setattr(viewer, "INTEGRITY", viewer.base64.b64encode(digest).decode())
    return path


def test_nothing_is_installed_at_first():
    assert viewer.find() is None


def test_a_tarball_is_installed_and_found(package):
    path = viewer.install(package)
    assert path.read_bytes() == CODE and path.with_name("LICENSE").read_bytes() == b"BSD"
    found = viewer.find()
    assert found.about == f"3Dmol.js {viewer.VERSION}"
    assert "</script" not in found.code and "<!--" not in found.code
    assert not (package.parent / "evil").exists() and not (package.parent.parent / "evil").exists()


def test_so_is_the_script_alone(package, tmp_path):
    (tmp_path / "some.js").write_bytes(CODE)
    viewer.install(tmp_path / "some.js")
    assert viewer.find() is not None


@pytest.mark.parametrize("content", [b"", b"other", gzip.compress(b"other", mtime=0), b"\x1f\x8b"])
def test_anything_else_is_refused(package, tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(UserError, match=r"other.*checksum"):
        viewer.install(tmp_path / "other")
    assert not viewer.cached().exists()


def test_an_installed_copy_that_changed_is_not_used(package, tmp_path):
    viewer.install(package).write_bytes(CODE + b"evil()")
    with pytest.raises(UserError, match="damaged"):
        viewer.find()
    text = write(made_run.run(tmp_path / "run")).read_text()  # nobody named it: drawn all the same
    assert "drawn without the 3D viewer" in text and "evil()" not in text


def test_a_copy_that_is_named(package, tmp_path):
    other = tmp_path / "3Dmol.js"
    other.write_text("window.$3Dmol = 0")
    assert "another version" in viewer.find(other).about
    other.write_text("console.log(1)")
    with pytest.raises(UserError, match=r"no copy of 3Dmol\.js"):
        viewer.find(other)
    other.write_bytes(b"3Dmol \xff\xff")
    with pytest.raises(UserError, match="no UTF-8"):
        viewer.find(other)
    with pytest.raises(UserError, match="cannot be read"):
        viewer.find(tmp_path / "absent.js")
    with pytest.raises(UserError, match="cannot be read"):
        write(made_run.run(tmp_path / "run"), tmp_path / "absent.js")
    assert not (tmp_path / "run" / "report.html").exists()


def test_npm_fetches_it(package, monkeypatch):
    def pack(command, **_):
        to = command[command.index("--pack-destination") + 1]
        (viewer.Path(to) / package.name).write_bytes(package.read_bytes())
        assert command[1:3] == ["pack", f"3dmol@{viewer.VERSION}"] and "--ignore-scripts" in command
        return viewer.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(viewer.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(viewer.subprocess, "run", pack)
    assert viewer.install().read_bytes() == CODE


def test_without_npm_or_network_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(viewer.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"npm is not installed.*--from"):
        viewer.install()
    failed = viewer.subprocess.CompletedProcess([], 1, "", "npm ERR! network unreachable\n")
    monkeypatch.setattr(viewer.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(viewer.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"network unreachable.*--from"):
        viewer.install()


def test_the_commands(package, tmp_path):
    folder = made_run.run(tmp_path / "run")
    runner = CliRunner()
    done = runner.invoke(cli, ["report", "install-viewer", "--from", str(package)])
    assert done.exit_code == 0 and "BSD-3-Clause" in done.output
    for command in (["report", str(folder)], ["report", "write", str(folder), "--viewer", str(viewer.cached())]):
        (folder / "report.html").unlink(missing_ok=True)
        done = runner.invoke(cli, command)
        assert (done.exit_code, done.output.strip()) == (0, str(folder / "report.html"))
    assert "install-viewer" in runner.invoke(cli, ["report", "--help"]).output


def test_the_package_in_the_registry_is_what_is_written_here(viewer_package):
    assert viewer.install(viewer_package).exists()
