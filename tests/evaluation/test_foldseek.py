"""Foldseek by a stand-in of its name: what it is asked, and what is made of its answers. It was never run itself."""

import pytest

from app.errors import UserError
from app.evaluation import evaluate, foldseek
from app.evaluation.settings import EvaluationSettings
from tests.evaluation.made_designs import demo, write_demo

STAND_IN = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
case "$1" in
  version) echo 10.abc ;;
  easy-cluster) ls "$2" > "$(dirname "$0")/given"; printf '{clusters}' > "$3_cluster.tsv" ;;
  easy-search) printf '{hits}' > "$4" ;;
esac
exit {status}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    def make(clusters="", hits="", status=0):
        path = tmp_path / "bin/foldseek"
        path.parent.mkdir(exist_ok=True)
        text = STAND_IN.replace("{clusters}", clusters).replace("{hits}", hits).replace("{status}", str(status))
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return path.parent

    return make


DESIGNS = {"--odd name": demo(0), "b": demo(1), "c": demo(2)}


def test_it_is_there_or_not(stand_in, monkeypatch, tmp_path):
    folder = stand_in()
    assert foldseek.identity() == {"name": "foldseek", "version": "10.abc"}
    (folder / "foldseek").write_text("#!/bin/sh\nexit 3\n")
    assert foldseek.identity() is None, "one that does not run is not there"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert foldseek.identity() is None


def test_clusters(stand_in):
    folder = stand_in(r"d1\td1\nd1\td2\nd0\td0\n")
    found, told = foldseek.clusters(DESIGNS)
    assert found == {"--odd name": 1, "b": 0, "c": 0}
    assert (folder / "given").read_text().split() == ["d0.pdb", "d1.pdb", "d2.pdb"], "names are not passed on"
    assert told["version"] == "10.abc"
    assert "easy-cluster" in told["command"] and "--tmscore-threshold 0.5" in told["command"]
    assert "--alignment-type 1 --cov-mode 0 --min-seq-id 0" in (folder / "asked").read_text()


def test_novelty(stand_in, tmp_path):
    stand_in(hits=r"d0.pdb\t1abc_A\t0.40\nd0.pdb\t2xyz_B\t0.71\nd1_A\t1abc_A\t0.3\n")
    found, told = foldseek.novelty(DESIGNS, tmp_path)
    assert found == {"--odd name": (0.71, "2xyz_B"), "b": (0.3, "1abc_A"), "c": (0.0, "")}
    assert "query,target,qtmscore" in told["command"] and str(tmp_path) in told["command"]


def test_an_evaluation_uses_it_and_does_without_it_where_it_fails(stand_in, tmp_path):
    for index in range(3):
        write_demo(tmp_path / f"designs/{index}.pdb", index)
    settings = EvaluationSettings(workers=1, resamples=100, novelty=tmp_path / "designs")
    said = []

    def of_set():
        return evaluate(tmp_path / "designs", settings, say=said.append).summary["set"]

    stand_in(r"d0\td0\nd0\td1\nd2\td2\n", hits=r"d0\tx\t0.4\n")
    found = of_set()
    assert found["diversity"]["clusters"] == 2 and found["diversity"]["tool"]["version"] == "10.abc"
    assert found["novelty"]["new_folds"] == 1 and "easy-search" in found["novelty"]["tool"]["command"]
    assert not said
    (tmp_path / "bin/foldseek").write_text("#!/bin/sh\n[ $1 = version ] && echo 10.abc || exit 1\n")
    found = of_set()
    assert found["diversity"]["tool"]["name"] == found["novelty"]["tool"]["name"] == "trunkline"
    assert found["novelty"]["new_folds"] == 0
    assert [line.rpartition("; ")[2] for line in said] == [
        "clusters are found without it",
        "novelty is found without it",
    ]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"status": 1}, "ended with status 1"),
        ({"clusters": r"d0\td0\n"}, "1 of 3"),
        ({"clusters": r"d0\td9\n"}, "names 'd9'"),
        ({"clusters": r"d0\n"}, "another form"),
    ],
)
def test_answers_that_make_no_sense_are_errors(stand_in, answers, said):
    stand_in(**answers)
    with pytest.raises(UserError, match=said):
        foldseek.clusters(DESIGNS)
