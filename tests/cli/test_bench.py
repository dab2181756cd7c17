"""`python -m app bench`, as typed."""

import json

import pytest
from typer.testing import CliRunner

from app import environment
from app.__main__ import cli
from app.bench import run as bench_run
from app.bench.apart import Failed
from app.cli.many import spread
from app.errors import UserError
from tests.bench.here import Here


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(bench_run, "Apart", Here)
    monkeypatch.setattr("app.bench.memory.return_what_is_freed", lambda: None)


def run(*arguments: str):
    return CliRunner().invoke(cli, ["bench", "--device", "cpu", *arguments], catch_exceptions=True)


def test_json_is_a_list_of_rows_and_nothing_else():
    result = run("--only", "triangle_attention", "--length", "4", "6", "--repeats", "1", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["length"] for row in rows] == [4] * (len(rows) // 2) + [6] * (len(rows) // 2)
    assert {"reference", "auto"} <= {row["backend"] for row in rows}
    assert "torch" in result.stderr and "memory of auto" in result.stderr


def test_the_table_names_the_best():
    result = run("--only", "triangle_attention", "--length=5", "--repeats", "1", "--backends", "torch")
    assert result.exit_code == 0
    assert "triangle_attention float32 5: " in result.stdout and " is best" in result.stdout
    assert "reference" in result.stdout and "1.00x" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nonsense"], "--only nonsense: the cases are model-forward, .*longest"),
        (["--only", "model-forwrd"], "did you mean model-forward"),
        (["--only", "esm:tiny"], "take a recipe"),
        (["--only", "model-forward:tinyy"], "did you mean tiny"),
        (["--only", "model-forward", "--recipe", "nonsense"], "the recipes are"),
        (["--dtype", "int8"], "--dtype int8: there is none of that name: use float32 or bfloat16"),
        (["--dtype", "float16"], "--dtype float16: the cpu device has none: use float32 or bfloat16"),
        (["--only", "self_attentoin"], "did you mean self_attention"),
        (
            ["--backends", "trifast", "--only", "edge_transition"],
            "--backends trifast: edge_transition .*it has reference",
        ),
        (
            ["--backends", "trifast", "--only", "edge_transition", "triangle_attention"],
            "nor has any other of the 2 cases",
        ),
        (["--backends", "triton", "--only", "edge_transition"], "runs on cuda, not on cpu"),
        (["--environment", "tf23"], "environment=tf23.* tf32"),
        (["--backends", "fast"], "--backends fast: there is none of that name: use auto, reference"),
        (["--device", "tpu"], "--device=tpu is unknown"),
        (["--only", "longest"], "needs an NVIDIA GPU"),
        (["--only", "self_attention", "longest:tiny"], "needs an NVIDIA GPU.*leave it out"),
        (
            ["--recipe", "tiny", "--only", "edge_transition"],
            r"--recipe tiny has no effect: only model-forward, .*leave it",
        ),
        (["--recipe", "tyni"], "recipe tyni: .*the recipes are .*tiny"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, told):
    import re

    error = run(*arguments).exception
    assert isinstance(error, UserError) and "\n" not in str(error)
    assert re.search(told, str(error)), error


def test_what_was_measured_before_an_interruption_is_shown(monkeypatch):
    real = bench_run._measured

    def measured(request, case, say):
        if case.endswith("-train"):
            raise KeyboardInterrupt
        yield from real(request, case, say)

    monkeypatch.setattr(bench_run, "_measured", measured)
    result = run("--only", "self_attention", "self_attention-train", "--length", "4", "--repeats", "1", "--json")
    assert result.exit_code == 130
    assert {row["case"] for row in json.loads(result.stdout)} == {"self_attention"}


@pytest.mark.parametrize("during", ["_times", "_peak"])
def test_so_is_what_was_measured_of_the_case_at_hand(monkeypatch, during):
    real, calls = getattr(bench_run, during), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(bench_run, during, interrupted)
    result = run("--only", "self_attention", "--length", "4", "5", "--repeats", "1", "--json")
    assert result.exit_code == 130
    rows = json.loads(result.stdout)
    assert {row["length"] for row in rows} == ({4} if during == "_times" else {4, 5})
    assert all(row["seconds"] for row in rows)
    assert sum(row["peak_mb"] is not None for row in rows) == (0 if during == "_times" else 1)


def test_what_is_named_twice_is_measured_once_and_a_recipe_is_that_of_all_models(monkeypatch):
    result = run("--only", "self_attention", "self_attention", "--length", "4", "4", "--repeats", "1", "--json")
    assert [row["backend"] for row in json.loads(result.stdout)] == ["reference", "auto", "torch"]
    seen = []
    monkeypatch.setattr(bench_run, "_measured", lambda request, case, say: seen.append(case) or iter(()))
    run("--recipe", "tiny", "--length", "4")
    assert {"model-forward:tiny", "model-train:tiny", "sampling:tiny", "self_attention"} <= set(seen)
    assert "model-forward" not in seen and len(seen) == len(set(seen))


def test_what_was_measured_before_a_failure_is_shown(monkeypatch):
    real = bench_run._measured

    def measured(request, case, say):
        if case.endswith("-train"):
            raise ValueError("broken")
        yield from real(request, case, say)

    monkeypatch.setattr(bench_run, "_measured", measured)
    result = run("--only", "self_attention", "self_attention-train", "--length", "4", "--repeats", "1", "--json")
    assert isinstance(result.exception, ValueError)
    assert {row["case"] for row in json.loads(result.stdout)} == {"self_attention"}


def test_where_nothing_can_be_measured_it_says_so_and_exits_with_one(monkeypatch):
    def fails(*_):
        raise Failed("its process crashed")

    monkeypatch.setattr(Here, "__call__", fails)
    for arguments in ([], ["--json"]):
        result = run("--only", "self_attention", "--length", "4", *arguments)
        assert result.exit_code == 1
        assert "self_attention 4 float32: torch failed: its process crashed" in result.stderr
        assert result.stderr.splitlines()[-1] == "nothing could be measured: the lines above say why"


def test_a_case_without_a_backend_that_another_has_is_told_and_measured():
    only = ["--only", "esm_attention", "model-forward:tiny"]
    result = run(*only, "--length", "4", "--dtype", "float32", "--repeats", "1", "--backends", "triton", "--json")
    assert result.exit_code == 0
    assert "esm_attention: not with triton: it has reference, torch" in result.stderr
    assert "runs on cuda, not on cpu" in result.stderr
    assert {(row["case"], row["backend"]) for row in json.loads(result.stdout)} == {
        (case, backend) for case in only[1:] for backend in ("reference", "auto")
    }


def test_a_backend_that_nothing_in_a_model_has_is_not_measured_under_its_name():
    result = run("--only", "model-forward:tiny", "--length", "4", "--dtype", "float32", "--backends", "flash_attn")
    assert "flash_attn left out: none of its operations has it" in result.stderr
    assert "flash_attn" not in result.stdout


def test_the_environment_is_that_of_a_recipe_and_stands_above_the_figures(monkeypatch):
    applied = []
    monkeypatch.setattr(environment, "apply", lambda settings: applied.append(settings.matmul_precision))
    result = run("--only", "self_attention", "--length", "4", "--repeats", "1", "--environment", "tf32")
    assert result.exit_code == 0 and applied == ["high"]
    assert "environment: tf32, " in result.stderr


def test_values_that_follow_one_another_belong_to_the_option():
    given = ["--only", "a", "b", "--json", "--length", "1", "2", "3", "--device", "cpu"]
    assert spread(given, {"--only", "--length"}) == [
        *("--only", "a", "--only", "b", "--json", "--length", "1", "--length", "2", "--length", "3", "--device", "cpu")
    ]
    assert spread(["--length=1", "2"], {"--length"}) == ["--length=1", "--length", "2"]


def test_a_stray_word_is_an_error():
    result = run("--json", "stray")
    assert result.exit_code == 2 and "stray" in result.stderr
