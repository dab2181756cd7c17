from pathlib import Path

import pytest

from tests.model.esm.made_esm import write_esm


@pytest.fixture(scope="session")
def esm(tmp_path_factory) -> Path:
    """The folder of a tiny language model."""
    return write_esm(tmp_path_factory.mktemp("esm") / "tiny", layers=3, width=32, heads=4)
