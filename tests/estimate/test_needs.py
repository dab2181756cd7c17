"""Estimates held against real passes: tensor by tensor, product by product, and by what a process takes."""

import sys

import pytest
import torch

from app.bench.apart import Apart
from app.bench.proteins import noisy_batch
from app.devices import NVIDIA
from app.errors import UserError
from app.estimate.needs import FRAGMENTS
from app.ops import select
from app.training.estimate import needs_of
from app.training.module import CodesignModule
from tests.estimate.measured import call, counter, peak_of_sampling, peak_of_training, recipe_of, step
from tests.memory import Memory, storages
from tests.model.esm.made_esm import write_esm

HEAVY = ["recipe=pairformer_heavy", "model.trunk.stages.0.depth=2", "model.trunk.stages.1.depth=1"]
LEGACY = ["recipe=multiflow_legacy", "model.trunk.stages.0.depth=3"]
HALF = "trainer.precision=bf16-mixed"

CASES = [
    (["recipe=tiny"], 2, 51),
    (["recipe=tiny", "kernels=reference"], 1, 44),
    (["recipe=tiny", HALF], 2, 37),
    (["recipe=pair_bias_light"], 1, 35),
    (["recipe=pair_bias_light", HALF], 1, 33),
    (["recipe=linear_memory"], 1, 130),
    (HEAVY, 1, 28),
    ([*HEAVY, "kernels=reference"], 1, 26),
    ([*HEAVY, HALF], 1, 28),
    ([*LEGACY, "model.trunk.stages.0.checkpoint=edge", "model.trunk.num_recycles=2"], 2, 42),
    ([*LEGACY, "kernels=reference"], 1, 30),
    (["recipe=tiny", "model/trunk=double_attention", "model/head=pair_bias"], 1, 30),
    (["recipe=tiny", "model/trunk=triangle_attention", "model.trunk.stages.0.depth=2"], 1, 34),
]


def passes(arguments: list[str], size: int, length: int) -> tuple[float, int, float, int]:
    """FLOPs and bytes of a training step, FLOPs and bytes of a pass in inference, on real tensors; of bytes what comes
    beside weights."""
    recipe = recipe_of(*arguments)
    module, batch = CodesignModule(recipe), noisy_batch(length, size, recipe.flow)
    given = sum({one._cdata: one.nbytes() for one in storages(list(vars(batch).values()))}.values())
    found = []
    with select.using(recipe.kernels):
        for train in (True, False):

            def run(train: bool = train) -> None:
                (step if train else call)(module.train(train), batch)

            run()  # loads what is loaded at first use
            module.zero_grad()
            with Memory() as memory:
                run()
            module.zero_grad()
            with counter() as flops:
                run()
            found += [flops.get_total_flops(), memory.peak + given]
    return tuple(found)


def assert_right(arguments: list[str], size: int, length: int) -> None:
    """Work to the product; of memory, what is counted is so within a few per cent."""
    needs = needs_of(recipe_of(*arguments), "cpu")
    training, sampling = needs.passes(size, length), needs.sampling(size, length)
    flops_train, of_training, flops_forward, of_sampling = passes(arguments, size, length)
    assert training.flops == pytest.approx(flops_train, rel=1e-3)
    assert sampling.flops == pytest.approx(flops_forward, rel=1e-3)
    assert (training.peak - needs.weights) / FRAGMENTS == pytest.approx(of_training, rel=0.02)
    assert (sampling.peak - needs.weights) / FRAGMENTS == pytest.approx(of_sampling, rel=0.02)


@pytest.mark.parametrize(("arguments", "size", "length"), CASES, ids=lambda value: str(value))
def test_an_estimate_is_what_real_tensors_take(arguments, size, length):
    assert_right(arguments, size, length)


@pytest.mark.parametrize("arguments", [HEAVY, LEGACY, ["recipe=linear_memory"]], ids=lambda value: value[0])
def test_so_it_is_in_slices_of_which_only_one_is_gone_through(arguments, monkeypatch):
    """Thresholds lowered, so that short chains are treated as long ones are."""
    for module in ("triangle_multiplication.chunked", "triangle_attention.chunked", "edge_embedding.gathered"):
        monkeypatch.setattr(f"app.ops.{module}.LARGEST", 2**16)
    monkeypatch.setattr("app.ops.edge_transition.chunked.PAIRS_IN_CACHE", 100)
    monkeypatch.setattr("app.ops.geometric_attention.chunked.QUERIES", 7)
    assert_right(arguments, 1, 43)


@pytest.mark.parametrize(("recipe", "backend"), [("flash_esm_nodeonly", "faplm"), ("esm_pairs", "transformers")])
def test_a_language_model_counts(recipe, backend, tmp_path):
    folder = write_esm(tmp_path / "esm", layers=3, width=32, heads=4)
    arguments = [f"recipe={recipe}", f"model.esm.name={folder}", "model.trunk.stages.0.depth=2"]
    needs = needs_of(recipe_of(*arguments), "cpu")
    training = needs.passes(2, 31)
    flops, peak, *_ = passes(arguments, 2, 31)
    assert needs.language > 3 * 12 * 32**2 * 4  # ESM-2's layers have 12 width^2 weights each
    assert training.flops == pytest.approx(flops, rel=0.01)
    # The real one was loaded before, and keeps what it said of the last batch.
    assert (training.peak - needs.weights - needs.language) / FRAGMENTS == pytest.approx(peak, rel=0.1)


MEASURED = [
    (["recipe=tiny"], 3, 180),
    (["recipe=pair_bias_light"], 1, 150),
    pytest.param(["recipe=linear_memory"], 1, 260, marks=pytest.mark.slow),
    pytest.param(["recipe=multiflow_legacy"], 1, 72, marks=pytest.mark.slow),
    pytest.param(["recipe=tiny", "kernels=reference"], 2, 120, marks=pytest.mark.slow),
    pytest.param(["recipe=pairformer_heavy"], 1, 90, marks=pytest.mark.slow),
]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a high-water mark cannot be reset")
@pytest.mark.parametrize(("arguments", "size", "length"), MEASURED, ids=lambda value: str(value))
def test_a_process_takes_what_was_estimated(arguments, size, length):
    """Within 25 %; in the trials that these were taken from, within 10 %."""
    needs = needs_of(recipe_of(*arguments), "cpu")
    with Apart() as apart:
        sampled = apart(peak_of_sampling, arguments, size, length)
        trained = apart(peak_of_training, arguments, size, length)
    assert needs.training(size, length).peak == pytest.approx(trained, rel=0.25)
    assert needs.sampling(size, length).peak == pytest.approx(sampled, rel=0.25)


def test_the_optimizers_moments_are_those_of_the_real_one():
    recipe = recipe_of("recipe=tiny")
    module = CodesignModule(recipe)
    optimizer = module.configure_optimizers()
    for weight in module.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    state = [value for one in optimizer.state.values() for value in one.values()]
    assert needs_of(recipe, "cpu").optimizer == sum(value.nbytes for value in state if value.dim())


def test_a_moving_average_is_one_more_copy_of_the_weights():
    without, averaging = (needs_of(recipe_of("recipe=tiny", f"ema.decay={decay}"), "cpu") for decay in ("null", 0.9))
    for more in (averaging.resident - without.resident, averaging.training(2, 40).peak - without.training(2, 40).peak):
        assert more == averaging.average == 4 * averaging.parameters
    assert averaging.sampling(2, 40) == without.sampling(2, 40)


def test_gradients_of_earlier_batches_are_there_in_the_forward_pass():
    alone, added = (needs_of(recipe_of("recipe=tiny", f"trainer.accumulate={n}"), "cpu") for n in (1, 4))
    assert 0 < added.passes(1, 60).peak - alone.passes(1, 60).peak <= 1.1 * alone.weights


def test_a_fused_kernel_does_the_references_work_and_keeps_its_arguments_and_results_alone():
    on_gpu = {
        name: needs_of(recipe_of(*LEGACY, HALF, f"kernels={name}"), NVIDIA).passes(1, 96)
        for name in ("triton", "reference", "torch")
    }
    fused, written_out, sliced = on_gpu["triton"], on_gpu["reference"], on_gpu["torch"]
    assert fused.flops == pytest.approx(written_out.flops, rel=0.05)
    assert fused.peak < sliced.peak < written_out.peak


def test_a_backend_that_cannot_serve_is_refused_and_leaves_nothing_behind():
    needs = needs_of(recipe_of("recipe=tiny", "kernels.invariant_point_attention=triton"), "cpu")
    with pytest.raises(UserError, match="=triton: runs on cuda, not on cpu"):
        needs.training(1, 16)
    assert torch.ones(2).device.type == "cpu" and select.settings().invariant_point_attention == "auto"


def test_one_pass_leaves_nothing_to_the_next():
    for arguments in HEAVY, ["recipe=tiny"]:
        needs = needs_of(recipe_of(*arguments), "cpu")
        first = needs.sampling(2, 60), needs.training(2, 60)
        needs.training(3, 90)
        assert (needs.sampling(2, 60), needs.training(2, 60)) == first


def test_random_numbers_are_as_they_were():
    """A run that is told what to expect draws the same."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    needs_of(recipe_of(*HEAVY), "cpu").training(1, 24)
    assert torch.equal(torch.rand(4), expected)
