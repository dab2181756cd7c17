"""The language model of the bench: random weights, no files, both packages the same function."""

import pytest
import torch

from app.bench import esm
from app.bench.case import AUTO, REFERENCE, Point
from app.model.esm.settings import EsmSize


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(esm, "SHAPE", "esm2_8m")
    monkeypatch.setitem(esm.PUBLISHED, "esm2_8m", ("none", EsmSize(2, 32, 4)))
    for made in (esm._language_model, esm._files):
        made.cache_clear()
    yield
    for made in (esm._language_model, esm._files):
        made.cache_clear()


def test_both_packages_give_the_same():
    job = esm.esm_job(Point("esm", "cpu", "float32", 9, 2))
    reference, auto = (job.outputs(backend, torch.float32) for backend in (REFERENCE, AUTO))
    assert reference["hidden"].shape == (2, 9, 32)
    assert reference["hidden"].std() > 0
    assert job.error(auto, reference) < 1e-5
    assert job.refuses(AUTO) is None


def test_where_no_package_is_installed_it_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(esm.backends, "_version", lambda package: None)
    assert "transformers not installed" in esm.esm_job(Point("esm", "cpu", "float32", 9, 1)).refuses(REFERENCE)
