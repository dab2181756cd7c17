"""The promise of conftest.py: without ../shared its tests skip, with it none may. Run on a checkout of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USES = """
import pytest

def test_reads(shared):
    assert shared.is_dir()

@pytest.fixture
def inner(shared):
    return shared

@pytest.mark.shared
def test_marked():
    assert True
"""
SKIPS = """
def test_skips_itself(inner):
    pytest.skip("no luck")

@pytest.mark.skipif(True, reason="never")
def test_skipped_by_mark(shared):
    pass

def test_unrelated():
    pytest.skip("fine")
"""
MODULE = "import pytest\npytest.skip('whole file, over shared', allow_module_level=True)\n"


@pytest.fixture
def checkout(tmp_path):
    """Runs pytest in <tmp>/checkout, beside which <tmp>/shared is or is not; -> (exit status, output)."""
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(ROOT / "tests/conftest.py", tests)

    def run(text: str, *arguments: str, there: bool) -> tuple[int, str]:
        (tests / "test_it.py").write_text(text)
        if there:
            (tmp_path / "shared").mkdir()
        command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-W", "ignore", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        environment.pop("PYTEST_ADDOPTS", None)
        done = subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_without_the_folder_tests_skip_with_the_reason(checkout):
    status, output = checkout(USES + SKIPS, there=False)
    assert status == 0
    assert "5 skipped" in output.splitlines()[-1]
    assert "../shared is not there" in output


def test_with_the_folder_a_skip_fails_the_run(checkout):
    status, output = checkout(USES + SKIPS, "-n", "2", there=True)
    assert status == 1
    assert re.search("2 passed, 1 skipped|1 skipped.*2 passed|2 passed.*1 skipped", output.splitlines()[-1])
    assert "skipped although ../shared is there" in output
    for name in ("test_skips_itself", "test_skipped_by_mark"):
        assert re.search(f"(FAILED|ERROR).*{name}", output)


def test_with_the_folder_and_no_skip_the_run_passes(checkout):
    status, output = checkout(USES, there=True)
    assert status == 0
    assert "2 passed" in output.splitlines()[-1]


def test_with_the_folder_a_file_that_skips_itself_fails_the_run(checkout):
    status, output = checkout(MODULE, there=True)
    assert status != 0
    assert "skipped although ../shared is there" in output
