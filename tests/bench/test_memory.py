"""Peaks of calls whose needs are known."""

import sys

import pytest

from app.bench.apart import Apart
from tests.bench.allocations import peak_beside, peaks

MEGABYTE = 2**20
SLACK = 4 * MEGABYTE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a high-water mark cannot be reset")


def test_a_known_allocation_is_found_each_time_whatever_was_freed_before():
    wanted = [64 * MEGABYTE, 16 * MEGABYTE, 64 * MEGABYTE]
    with Apart() as apart:
        found = apart(peaks, *wanted)
    assert all(abs(one - want) < SLACK for want, one in zip(wanted, found, strict=True)), found


def test_what_is_there_before_does_not_count():
    with Apart() as apart:
        found = apart(peak_beside, 128 * MEGABYTE, 32 * MEGABYTE)
    assert abs(found - 32 * MEGABYTE) < SLACK
