"""`python -m app data cluster`: what it writes serves as the clusters of a run."""

import numpy as np
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.data.cluster_file import read_clusters
from app.data.datamodule import ProteinDataModule
from app.errors import UserError
from tests.data import made_multiflow
from tests.data.families import ancestor, descendant
from tests.data.made_structures import write_sequences


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "cluster", *map(str, arguments)])


def test_structures_whatever_a_run_would_filter(tmp_path):
    random = np.random.default_rng(0)
    first, other = ancestor(random, 90), ancestor(random, 30)
    write_sequences(tmp_path / "files" / "one.pdb", first, other)
    write_sequences(tmp_path / "files" / "two.pdb", descendant(random, first, 0.8))
    (tmp_path / "files" / "broken.pdb").write_text("nothing")
    cache = ("--cache-dir", tmp_path / "cache")
    told = run(tmp_path / "files", "--to", tmp_path / "made.clusters", *cache)
    assert told.exit_code == 0 and "3 examples in 2 clusters, the largest of 2" in told.output
    assert "1 cannot be read" in told.output
    assert (tmp_path / "made.clusters").read_text() == "one_A two_A\none_B\n"
    strict = run(tmp_path / "files", "--to", tmp_path / "strict.clusters", "--min-identity", 0.95, *cache)
    assert "3 examples in 3 clusters" in strict.output
    refused = run(tmp_path / "files", "--to", tmp_path / "x", "--min-identity", 1.5, *cache)
    assert isinstance(refused.exception, UserError) and "data.likeness.min_identity=1.5" in str(refused.exception)


def test_multiflow_data_set_then_holds_out(tmp_path):
    random = np.random.default_rng(1)
    rows = [made_multiflow.row(f"1aa{letter}", modeled_seq_len=90) for letter in "abcd"]
    chain = made_multiflow.chain(90, aatype=random.integers(0, 20, 90))
    folder = made_multiflow.write(tmp_path, rows, {"1aab": chain, "1aad": chain, "1aac": b"broken"})
    told = run(folder, "--to", folder / "pdb.clusters", "--cache-dir", tmp_path / "cache")
    assert told.exit_code == 0 and "3 examples in 2 clusters" in told.output and "1 cannot be read" in told.output
    assert read_clusters(folder / "pdb.clusters") == {"1AAA": [0], "1AAB": [1], "1AAD": [1]}
    data = ProteinDataModule({"kind": "multiflow", "path": str(folder), "validation": {"hold_out": ["1aad"]}})
    data.setup()
    assert set(data.held_out.names) == {"1aab", "1aad"} and data.dataset.names == ["1aaa"]


def test_nothing_to_cluster(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "broken.pdb").write_text("nothing")
    told = run(tmp_path / "files", "--to", tmp_path / "x", "--cache-dir", tmp_path / "cache")
    assert isinstance(told.exception, UserError) and "holds nothing that can be read" in str(told.exception)
    with pytest.raises(UserError, match="no such folder"):
        raise run(tmp_path / "nowhere", "--to", tmp_path / "x").exception
