"""`python -m app estimate`, as typed."""

import json
import resource
import time

import pytest
from typer.testing import CliRunner

from app import devices
from app.__main__ import cli
from app.config.compose import options
from app.errors import UserError

KEYS = {
    "parameters", "flops_forward", "flops_train", "memory_train_mb", "memory_sample_mb", "max_batch", "max_length",
}  # fmt: skip


def run(*arguments: str):
    return CliRunner().invoke(cli, ["estimate", *arguments], env={"COLUMNS": "250"}, catch_exceptions=True)


def estimate(*arguments: str) -> dict:
    result = run(*arguments, "--json")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


@pytest.mark.parametrize("recipe", options()["recipe"])
def test_every_recipe_is_estimated_without_its_weights(recipe, monkeypatch):
    """Those with a language model of gigabytes too, of which nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = estimate(f"recipe={recipe}", "length=48", "device=cuda")  # which no machine's memory makes longer
    assert found.keys() >= KEYS
    assert found["flops_train"] > 2 * found["flops_forward"] * (0.4 if "esm" in recipe else 1)
    assert found["memory_train_mb"] > found["memory_sample_mb"] > 4 * found["parameters"] / 2**20
    assert sum(found["memory_parts_mb"].values()) == pytest.approx(found["memory_train_mb"], abs=0.5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KB on Linux


@pytest.mark.slow
def test_a_long_chain_of_a_heavy_recipe_takes_seconds_and_no_memory():
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = estimate("recipe=pairformer_heavy", "length=1024", "memory_gb=64")
    assert found["memory_train_mb"] > 20_000
    assert (found["length"], found["batch"], found["max_batch"], found["batch_by_loader"]) == (1024, 1, 1, 1)
    assert 1024 < found["max_length"] < 2048
    assert time.process_time() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


@pytest.mark.slow
def test_what_fits_follows_from_the_memory_and_fills_it():
    given = estimate("recipe=tiny", "length=80", "device=cpu", "memory_gb=4")
    most, longest = given["max_batch"], given["max_length"]
    room = 4 * 1024 - 0.75 * 1024  # the program's own
    for fits in (f"batch={most}", "length=80"), ("batch=1", f"length={longest}"):
        taken = estimate("recipe=tiny", "device=cpu", "memory_gb=4", *fits)["memory_train_mb"]
        assert 0.96 * room < taken <= room
    more = estimate("recipe=tiny", "length=80", "device=cpu", "memory_gb=16")
    assert more["max_batch"] > 3 * most and more["max_length"] > 1.7 * longest


def test_a_gpu_need_not_be_there(monkeypatch):
    monkeypatch.setattr(devices, "memory_of", lambda device: None)
    monkeypatch.setattr("app.training.estimate.memory_of", lambda device: None)
    unknown = estimate("recipe=tiny", "device=cuda", "length=64")
    assert (unknown["device"], unknown["max_batch"], unknown["max_length"]) == ("cuda", None, None)
    assert "memory_gb=... how much" in run("recipe=tiny", "device=cuda", "length=64").stdout
    known = estimate("recipe=tiny", "device=cuda", "length=64", "memory_gb=40")
    assert known["max_batch"] > 64 and known["memory_device_mb"] == 40 * 1024


@pytest.mark.slow
def test_what_the_recipe_says_is_seen():
    plain = estimate("recipe=multiflow_legacy", "length=192", "device=cuda")
    kept = estimate("recipe=multiflow_legacy", "length=192", "device=cuda", "model.trunk.stages.0.checkpoint=true")
    assert kept["memory_train_mb"] < plain["memory_train_mb"]
    assert 1.2 < kept["flops_train"] / plain["flops_train"] < 1.4  # one more forward pass for three
    twice = estimate("recipe=multiflow_legacy", "length=192", "device=cuda", "model.trunk.num_recycles=1")
    assert twice["flops_forward"] == pytest.approx(2 * plain["flops_forward"], rel=0.1)
    written_out = estimate("recipe=multiflow_legacy", "length=192", "device=cuda", "kernels=reference")
    assert written_out["memory_train_mb"] > 1.5 * plain["memory_train_mb"]
    assert written_out["kernels"]["edge_transition"] == ["reference"]
    ours = "kernels=triton", "kernels.edge_transition=triton", "trainer.precision=bf16-mixed"
    fused = estimate("recipe=multiflow_legacy", "length=192", "device=cuda", *ours)
    assert fused["kernels"]["edge_transition"] == fused["kernels"]["invariant_point_attention"] == ["triton"]
    assert fused["precision"] == "bf16-mixed"


def test_the_loaders_limits_are_seen_and_warned_of():
    told = ["recipe=pair_bias_light", "data.loader.max_residues_squared=9000000", "length=128", "memory_gb=2"]
    found = estimate(*told, "device=cpu")
    assert found["batch_by_loader"] == 64  # max_batch_size is the lower one
    assert 0 < found["max_batch"] < 64
    assert "warning: data.loader makes batches of 64 at 128 residues" in run(*told, "device=cpu").stdout


def test_a_data_set_need_not_be_there():
    assert estimate("recipe=tiny", "data=structures", "length=40", "device=cuda")["batch_by_loader"] == 64


@pytest.mark.slow
def test_on_several_devices_it_is_of_each():
    told = ["recipe=tiny", "length=64", "device=cuda", "memory_gb=2"]
    alone, of_each = estimate(*told), estimate(*told, "trainer=fsdp", "trainer.devices=4", "trainer.num_nodes=2")
    assert (of_each["devices"], of_each["strategy"]) == (8, "fsdp") and alone["strategy"] is None
    assert of_each["memory_parts_mb"]["weights"] < alone["memory_parts_mb"]["weights"] / 6
    assert of_each["max_batch"] > 64 and of_each["memory_parts_mb"]["exchange_between_devices"] > 0
    shown = run(*told, "trainer=ddp", "trainer.devices=4").stdout
    assert "residues on each of 4 cuda by ddp" in shown


def test_words_for_people():
    shown = run("recipe=tiny", "length=64", "device=cpu", "memory_gb=2").stdout
    assert "tiny: 0.35 million parameters" in shown
    assert "batch of 1 x 64 residues on cpu" in shown
    assert "training fits batches of up to" in shown and "invariant_point_attention=torch" in shown


def test_what_fits_nowhere_is_told():
    shown = run("recipe=multiflow_legacy", "length=64", "device=cpu", "memory_gb=0.8").stdout
    assert "training fits no batch at 64 residues, and chains of no length" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["length=0"], "length='0'"),
        (["length=many"], "length='many'"),
        (["batch=-1"], "batch='-1'"),
        (["memory_gb=nan"], "memory_gb='nan'"),
        (["length=5", "length=6"], "length is given twice"),
        (["device=tpu"], "device=tpu is unknown"),
        (["recipe=tinny"], "did you mean tiny"),
        (["recipe=tiny", "modl.c_s=3"], "modl"),
        (["resume=last.ckpt"], "resume has no effect on an estimate"),
        (["recipe=tiny", "kernels.edge_transition=torch"], "kernels.edge_transition has no effect"),
        (["recipe=tiny", "kernels.invariant_point_attention=triton", "device=cpu"], "runs on cuda, not on cpu"),
        (["recipe=tiny", "data.loader.bucket=0"], "data.loader.bucket=0"),
        (["256"], "is not an override"),
        (["recipe=tiny", "trainer=fsdp", "device=mps"], "trainer.devices=auto: there is none here: say how many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(arguments, said):
    told = refusal(*arguments)
    assert said in told and "\n" not in told
