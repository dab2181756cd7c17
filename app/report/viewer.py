"""The 3D viewer that a page carries: 3Dmol.js (Rego & Koes 2015), a copy of which lies in the user's cache.

Trunkline does not come with it: `python -m app report install-viewer` has npm fetch it, or takes a file. What is
inlined is held to the checksum of the version that the pages were tested with.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from app.errors import UserError
from app.structure.atomic import replacing

PACKAGE, VERSION = "3dmol", "2.5.5"
LICENSE = "BSD-3-Clause"

INTEGRITY = "kqNHouGqq3YfW58174tdERvm0XYTmP0tavQKOqIw1ouc2OJ7epkXEFrtEkVXV0clBZT2Ze2xHRC/qxX0u0qCdw=="
"""SHA-512 of the package's tarball, as npm's registry has it."""

SHA256 = "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"
"""Of 3Dmol-min.js in that tarball."""

_FILE, _LICENSE = "3Dmol-min.js", "LICENSE"
_IN_PACKAGE = "package/build/3Dmol-min.js", "package/LICENSE"
_LARGEST = 64 * 2**20  # bytes of a script or a tarball; the real ones have 0.5 and 4 MB
_CURE = "python -m app report install-viewer"


@dataclass(frozen=True)
class Viewer:
    code: str
    about: str  # name and version, or what is known of another


def cached() -> Path:
    """Where the installed copy lies, whether or not there is one."""
    return user_cache_path("trunkline", appauthor=False) / f"{PACKAGE}-{VERSION}" / _FILE


def find(path: Path | None = None) -> Viewer | None:
    """The viewer at `path`, or else the installed one; None where none is installed.

    A path may hold another version, at its user's own risk: it is inlined as it is. Raises UserError: no such file, no
    3Dmol.js, an installed copy that was damaged.
    """
    if path is not None:
        content = _read(path)
        if hashlib.sha256(content).hexdigest() == SHA256:
            return _inlined(content, path, f"3Dmol.js {VERSION}")
        if b"3Dmol" not in content:
            raise UserError(f"{path}: no copy of 3Dmol.js; give its 3Dmol-min.js, or install one: {_CURE}")
        return _inlined(content, path, "3Dmol.js of another version than the tested one")
    if not cached().exists():
        return None
    content = _read(cached())
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{cached()}: damaged, not 3Dmol.js {VERSION}: {_CURE} puts it right")
    return _inlined(content, cached(), f"3Dmol.js {VERSION}")


def install(source: Path | None = None) -> Path:
    """Put 3Dmol.js and its licence into the user's cache; returns where it is.

    source: the package's tarball as npm packs it, or its 3Dmol-min.js; None: `npm pack` fetches it. Raises UserError:
    no npm, no network, a file that is not this version.
    """
    if source is None:
        with tempfile.TemporaryDirectory() as folder:
            return install(_fetch(Path(folder)))
    content, license_text = _read(source), None
    if content[:2] == b"\x1f\x8b":  # gzip
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
            raise UserError(f"{source}: not {PACKAGE} {VERSION} as npm has it, by its checksum: get it again")
        content, license_text = _members(source)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{source}: not the {_FILE} of {PACKAGE} {VERSION}, by its checksum: get that version")
    try:
        if license_text is not None:
            with replacing(cached().with_name(_LICENSE)) as aside:
                aside.write_bytes(license_text)
        with replacing(cached()) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise UserError(f"{cached()}: cannot be written ({error.strerror}); make room, or give --viewer") from None
    return cached()


def _fetch(folder: Path) -> Path:
    name = f"{PACKAGE}@{VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm is not installed, which fetches the viewer: install it, or pack {name} elsewhere (npm pack {name}) "
            f"and run {_CURE} --from {PACKAGE}-{VERSION}.tgz"
        )
    done = subprocess.run(
        [npm, "pack", name, "--ignore-scripts", "--pack-destination", str(folder)], capture_output=True, text=True
    )
    packed = sorted(folder.glob("*.tgz"))
    if done.returncode or not packed:
        said = next((line for line in done.stderr.splitlines() if "ERR" in line or "error" in line), "no reason given")
        raise UserError(f"npm pack {name} failed ({said}): look after the network, or give a file with --from")
    return packed[0]


def _members(tarball: Path) -> tuple[bytes, bytes]:
    """The two files wanted, read and not unpacked."""
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            script, license_text = (archive.extractfile(name).read(_LARGEST) for name in _IN_PACKAGE)
            return script, license_text
    except (tarfile.TarError, KeyError, AttributeError, OSError, EOFError):
        raise UserError(f"{tarball}: holds no {_IN_PACKAGE[0]}: give the tarball of {PACKAGE} {VERSION}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise UserError(f"{path}: the viewer cannot be read ({error.strerror}); or install one: {_CURE}") from None


def _inlined(content: bytes, path: Path, about: str) -> Viewer:
    """A script may hold anything but the end of the element that it stands in."""
    try:
        code = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a script, as it is no UTF-8 text; give 3Dmol-min.js") from None
    return Viewer(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"), about)
