"""Which version of the code a run has, where the code lies in a git repository."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

CODE = Path(__file__).resolve().parents[2]


@cache
def git_state(code: Path = CODE) -> dict[str, Any] | None:
    """`commit`, `branch` (None: detached), and `changed`: files that are not as they were committed, new ones included.

    As it was when first asked for. None where git does not keep this very code: an installed copy may lie within
    somebody else's repository.
    """
    try:
        _git(code, "ls-files", "--error-unmatch", "app/__init__.py")
        commit, branch = _git(code, "rev-parse", "HEAD"), _git(code, "rev-parse", "--abbrev-ref", "HEAD")
        changed = _git(code, "status", "--porcelain", "--no-renames", "--", ".")
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None
    return {
        "commit": commit.strip(),
        "branch": None if branch.strip() == "HEAD" else branch.strip(),
        "changed": [line[3:] for line in changed.splitlines()],
    }


def _git(code: Path, *arguments: str) -> str:
    command = ["git", "-C", str(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
