"""What every test has: one thread, fixed seeds, and `shared`, the folder of data beside the repository."""

import os
import random
from pathlib import Path

import pytest

from app import environment

environment.prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # kernels then run in Python; read when triton is imported

SHARED = Path(__file__).resolve().parents[2] / "shared"
ABSENT = "../shared is not there: it holds the reference numbers and structures that this test reads"

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def restored_precision():
    """For tests that set the precision of float32 products, which is the whole process's."""
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared; without it the test skips. Where it is there, a test that uses this and skips anyway has failed."""
    if not SHARED.is_dir():
        pytest.skip(ABSENT)
    return SHARED


def pytest_runtest_setup(item):
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip(ABSENT)
    if item.get_closest_marker("gpu") and not HAS_GPU:
        pytest.skip("needs an NVIDIA GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needs_shared = "shared" in getattr(item, "fixturenames", ()) or item.get_closest_marker("shared")
    if report.skipped and not hasattr(report, "wasxfail") and needs_shared:
        _fail_if_there(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A whole file that skips itself: held to the same where it speaks of `shared`."""
    report = yield
    if report.skipped and collector.path.is_file() and "shared" in collector.path.read_text():
        _fail_if_there(report)
    return report


def _fail_if_there(report):
    if SHARED.is_dir():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although ../shared is there, which counts as failed. It said: {reason}"
