"""train.py cuda_graph=true: replayed passes give the bits of launched ones, and there is a way back."""

import json

import pytest
import torch
import yaml

from app.data.ledger import Ledger
from app.devices import NVIDIA
from app.errors import UserError
from app.model.compiled import compile_in_place
from app.training import step as steps
from app.training.module import CodesignModule
from app.training.passes import Place, passes
from app.training.recorded import MOST, MULTIPLE, WARM_UP, RecordedPasses, padded, refuse
from app.training.run import train
from app.training.validate import Validate
from app.types import Share
from tests import cuda_graph
from tests.factories import noisy_batch, protein_batch, tiny_module, tiny_recipe
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights

DROPOUT = {"trunk": {"stages": [tiny_recipe()["model"]["trunk"]["stages"][0] | {"transformer_dropout": 0.3}]}}


@pytest.fixture
def graphs(monkeypatch) -> list[cuda_graph.Graph]:
    """The CPU has CUDA graphs; those that were made."""
    return cuda_graph.install(monkeypatch, "app.training.recorded")


def module_of(**sections) -> CodesignModule:
    return tiny_module(**{"model": DROPOUT, "flow": {"self_condition_share": 0.5}} | sections).train()


def recorder(module: CodesignModule) -> RecordedPasses:
    return RecordedPasses(module.losses_of_part, module.parameters())


def batches(count: int, length: int = MULTIPLE, device: str = "cpu"):
    """Of ever other proteins, masks and shares, and where in the run they are."""
    for index in range(count):
        batch = protein_batch(3, length, seed=index, given=index % 3, missing=index % 4).to(device)
        batch.share = Share(0.1 + 0.2 * index)
        yield batch, Place(0, index, 0)


def gradients(module: CodesignModule) -> list[torch.Tensor]:
    made = [torch.zeros_like(one) if one.grad is None else one.grad for one in module.parameters()]
    module.zero_grad()
    return made


def assert_same(found, expected, **how):
    torch.testing.assert_close(found, expected, **{"rtol": 0, "atol": 0} | how)


# Replays


@pytest.mark.parametrize("accumulate", [1, 3])
def test_replays_give_the_losses_and_gradients_of_launched_passes(graphs, accumulate):
    """Of batches with the model's own estimate and without, with dropout, alone and added to others'."""
    module, ledger = module_of(), Ledger()
    recorded, conditioned = recorder(module), []
    for number, (batch, place) in enumerate(batches(12), 1):
        conditioned.append(module._conditions(place))
        found = passes(module, batch, place, ledger, recorded=recorded)
        if number % accumulate == 0:
            of_replays = gradients(module)
            for past in list(batches(number))[-accumulate:]:
                expected = passes(module, *past, ledger)
            assert_same([found, of_replays], [expected, gradients(module)])
    assert recorded.serves and not ledger.shapes
    assert [graph.replays for graph in graphs] == [
        conditioned.count(kind) - WARM_UP for kind in _first_due(conditioned)
    ]


def _first_due(kinds: list[bool]) -> list[bool]:
    """In which order the third of its kind comes."""
    thirds = {kind: [i for i, one in enumerate(kinds) if one is kind][WARM_UP] for kind in (False, True)}
    return sorted(thirds, key=thirds.get)


def test_what_is_told_of_a_batch_outlives_the_next_replay(graphs):
    module = module_of(flow={"self_condition_share": 0.0})
    recorded = recorder(module)
    told = [passes(module, *at, Ledger(), recorded=recorded) for at in batches(6)]
    assert_same(told, [passes(module, *at, Ledger()) for at in batches(6)])
    assert len(graphs) == 1


def test_lengths_up_to_a_multiple_share_a_graph_and_padding_counts_for_nothing(graphs):
    module = module_of(model={}, flow={"self_condition_share": 1.0})
    recorded = recorder(module)
    for length in range(MULTIPLE - 5, MULTIPLE + 1):
        ((batch, place),) = batches(1, length)
        found = passes(module, batch, place, Ledger(), recorded=recorded), gradients(module)
        expected = passes(module, batch, place, Ledger()), gradients(module)
        assert_same(found, expected, rtol=1e-4, atol=1e-6)
    (graph,) = graphs
    assert graph.replays == 6 - WARM_UP


def test_padding_is_as_that_of_the_data():
    batch = noisy_batch(length=13)
    more = padded(batch, MULTIPLE)
    assert padded(more, MULTIPLE) is more and more.names == batch.names
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            wide = vars(more)[name]
            assert wide.dtype == value.dtype
            if name.endswith("_t") and value.shape[1] == 1:
                assert wide is value
                continue
            assert wide.shape[1] == MULTIPLE and wide[:, :13].equal(value)
            rest = wide[:, 13:]
            if name.startswith("rotmats"):
                assert rest.equal(torch.eye(3).expand_as(rest))
            else:
                assert (rest == (20 if name in ("aatypes_t", "aatypes_1") else 0)).all()


def test_weights_that_a_step_has_changed_are_read_anew_and_those_that_moved_are_recorded_anew(graphs):
    module = module_of(flow={"self_condition_share": 0.0})
    recorded, optimizer = recorder(module), torch.optim.SGD(module.parameters(), 0.1)
    for number, (batch, place) in enumerate(batches(11)):
        found = passes(module, batch, place, Ledger(), recorded=recorded), gradients(module)
        expected = passes(module, batch, place, Ledger()), gradients(module)
        assert_same(found, expected)
        if number == 6:
            for parameter in module.parameters():
                parameter.data = parameter.data.clone()
        for parameter, gradient in zip(module.parameters(), found[1], strict=True):
            parameter.grad = gradient
        optimizer.step()
        module.zero_grad()
    assert [graph.replays for graph in graphs] == [7 - WARM_UP, 4]


def test_shapes_beyond_the_most_are_launched(graphs, monkeypatch):
    monkeypatch.setattr("app.training.recorded.MOST", 1)
    module = module_of(flow={"self_condition_share": 0.0})
    recorded = recorder(module)
    for length in (MULTIPLE, 2 * MULTIPLE):
        for at in batches(4, length):
            found = passes(module, *at, Ledger(), recorded=recorded), gradients(module)
            assert_same(found, (passes(module, *at, Ledger()), gradients(module)))
    assert len(graphs) == 1 < MOST


def test_gradients_that_are_one_tensor_are_two_of_their_own(graphs):
    """Clipping in place would otherwise shrink them twice."""
    one, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))

    def losses(batch, conditioned):
        return {"train_loss": (one + other).sum() * batch.res_mask.mean(1)}

    recorded = RecordedPasses(losses, [one, other])
    for _ in range(WARM_UP + 1):
        one.grad = other.grad = None
        recorded(noisy_batch(), False, 1.0)
        one.grad.mul_(2)
        assert_same(one.grad, 2 * other.grad)
    assert recorded.serves


def test_a_step_is_replayed_from_its_file_with_the_dropout_of_its_padding(graphs):
    module = module_of()
    for at in batches(3, 13):
        found = passes(module, *at, Ledger(), recorded=recorder(module)), gradients(module)
        launched = RecordedPasses(module.losses_of_part, module.parameters(), records=False)
        assert_same((passes(module, *at, Ledger(), recorded=launched), gradients(module)), found)
        unpadded = passes(module, *at, Ledger())
        assert not unpadded["losses"]["train_loss"].equal(found[0]["losses"]["train_loss"])
        module.zero_grad()


# Ways back


def test_what_cannot_be_recorded_is_an_error_that_names_the_cure(graphs, monkeypatch):
    module = module_of(flow={"self_condition_share": 0.0})
    plain = module.losses
    monkeypatch.setattr(module, "losses", lambda batch: plain(batch) if bool(batch.res_mask.any()) else None)
    recorded = recorder(module)
    for at in batches(WARM_UP):
        passes(module, *at, Ledger(), recorded=recorded)
    with pytest.raises(
        UserError, match=r"cuda_graph=true: .* cannot be recorded .*not permitted.*: set cuda_graph=false"
    ):
        passes(module, *at, Ledger(), recorded=recorded)


def test_out_of_memory_while_recording_costs_the_recording_and_not_the_batch(graphs, caplog, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch.cuda, "graph", full)
    module, ledger = module_of(), Ledger()
    recorded = recorder(module)
    for at in batches(8):
        found = passes(module, *at, ledger, recorded=recorded), gradients(module)
        assert_same(found, (passes(module, *at, ledger), gradients(module)))
    (warning,) = caplog.records
    assert "out of memory beside what is recorded" in warning.message
    assert not ledger.shapes and not recorded.serves and not recorded.holds_memory


def test_out_of_memory_beside_what_is_recorded_costs_that_and_not_the_batch(graphs, caplog, monkeypatch):
    module, ledger = module_of(flow={"self_condition_share": 0.0}), Ledger()
    recorded, plain = recorder(module), module.losses

    def losses(batch):
        if recorded.holds_memory and batch.res_mask.shape[1] > MULTIPLE:
            raise torch.OutOfMemoryError("out of memory")
        return plain(batch)

    monkeypatch.setattr(module, "losses", losses)
    for at in batches(4):
        passes(module, *at, ledger, recorded=recorded)
    kept = [one.grad.clone() for one in module.parameters()]
    ((batch, place),) = batches(1, 2 * MULTIPLE)
    found = passes(module, batch, place, ledger, recorded=recorded)
    of_both = gradients(module)
    assert_same(found, passes(module, batch, place, ledger))
    assert_same(of_both, [one + other for one, other in zip(kept, gradients(module), strict=True)])
    (warning,) = caplog.records
    assert "out of memory beside what is recorded" in warning.message
    assert not ledger.shapes and not recorded.holds_memory and len(graphs) == 1


def test_a_batch_for_which_memory_does_not_suffice_goes_through_in_recorded_halves(graphs, monkeypatch):
    module, ledger = module_of(model={}, flow={"self_condition_share": 0.0}), Ledger()
    recorded, plain = recorder(module), module.losses

    def losses(batch):
        if len(batch.res_mask) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return plain(batch)

    expected = [(passes(module, *at, Ledger()), gradients(module)) for at in batches(4)]
    monkeypatch.setattr(module, "losses", losses)
    for at, wanted in zip(batches(4), expected, strict=True):
        found = passes(module, *at, ledger, recorded=recorded), gradients(module)
        assert_same(found, wanted, rtol=1e-4, atol=1e-6)
    assert ledger.shapes == {(3, MULTIPLE)} and recorded.serves


# Runs


def run(folder, name, *more):
    assert train(arguments(folder, "trainer.max_steps=24", f"out={folder / name}", *more)) == 0
    return folder / name


def recorded_in(out) -> bool:
    return yaml.safe_load((out / "machine.yaml").read_text())["cuda_graph"]


def test_a_run_is_the_same_and_goes_on_either_way(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr("app.training.recorded.MULTIPLE", 1)  # dropout of padded batches is another
    plain, replayed = run(tmp_path, "plain"), run(tmp_path, "replayed", "cuda_graph=true")
    assert_same_weights(plain, replayed)
    assert [recorded_in(out) for out in (plain, replayed)] == [False, True]
    assert sum(graph.replays for graph in graphs) > 0
    last = replayed / "checkpoints/last.ckpt"
    for out in (plain, replayed):
        assert train([f"resume={out / 'checkpoints/last.ckpt'}", "trainer.max_steps=30"]) == 0
    assert_same_weights(plain, replayed)
    assert "passes were replayed" in (replayed / "train.log").read_text()
    assert train([f"resume={last}", "trainer.max_steps=31", "cuda_graph=false"]) == 0
    assert runs.checkpoint(replayed)["trunkline"]["recipe"]["cuda_graph"] is False


def test_an_optimizer_that_lacks_memory_beside_graphs_has_theirs(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr("app.training.recorded.MULTIPLE", 1)
    plain = run(tmp_path, "plain")
    copied = steps.Before

    def before(optimizer):
        if any(graph.operators for graph in graphs) and not released:
            released.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return copied(optimizer)

    released: list[bool] = []
    monkeypatch.setattr(steps, "Before", before)
    replayed = run(tmp_path, "replayed", "cuda_graph=true")
    assert_same_weights(plain, replayed)
    assert released and not recorded_in(replayed)
    assert json.loads((replayed / "summary.json").read_text())["skipped_oom"] == 0


def test_validation_has_the_memory_of_what_is_recorded(graphs, tmp_path, monkeypatch):
    held, validate = [], Validate._take_losses

    def take_losses(self, trainer):
        held.append(trainer.lightning_module.step.recorded.holds_memory)
        validate(self, trainer)

    monkeypatch.setattr(Validate, "_take_losses", take_losses)
    monkeypatch.setattr("app.training.recorded.MULTIPLE", 1)
    validated = (
        "trainer.validate_every=12",
        "data.validation.fraction=0.2",
        "validation.designs=0",
        "validation.folds=0",
    )
    plain = run(tmp_path, "plain", "data.validation.fraction=0.2", "trainer.validate_every=null")
    replayed = run(tmp_path, "replayed", "cuda_graph=true", *validated)
    assert_same_weights(plain, replayed)
    assert held == [False, False] and recorded_in(replayed)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ((), "NVIDIA GPUs only, not on cpu: set cuda_graph=false"),
        (("trainer.strategy=fsdp",), "ranks wait for each other"),
        (("model.trunk.stages.0.checkpoint=true",), "a stage with checkpoint"),
    ],
)
def test_where_nothing_can_be_recorded_nothing_begins(typed, reason, tmp_path, monkeypatch):
    if typed:
        cuda_graph.install(monkeypatch, "app.training.recorded")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="cuda_graph=true") as error:
        train(arguments(tmp_path, "trainer.max_steps=2", f"out={out}", "cuda_graph=true", *typed))
    assert reason in str(error.value) and not out.exists()


def test_a_language_model_is_refused():
    """Unlike one of the same kind without: it reads on the host."""
    model = tiny_module().model
    refuse(model, torch.device(NVIDIA), "auto")
    model.esm = torch.nn.Identity()
    with pytest.raises(UserError, match=r"cuda_graph=true: a language model .*: set cuda_graph=false"):
        refuse(model, torch.device(NVIDIA), "auto")


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "compiled"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_on_a_gpu_replays_give_the_losses_and_gradients_of_launched_passes(dtype, compiled, caplog):
    """Under autocast, which casts weights anew at every replay, with dropout, and between steps of an optimizer."""
    module = module_of().to(NVIDIA)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    if compiled:
        compile_in_place(module.model, torch.device(NVIDIA))
    recorded = recorder(module)
    launched = RecordedPasses(module.losses_of_part, module.parameters(), records=False)
    for number, at in enumerate(batches(14, device=NVIDIA)):
        with torch.autocast(NVIDIA, dtype, enabled=dtype != torch.float32):
            found = passes(module, *at, Ledger(), recorded=recorded), gradients(module)
        with torch.autocast(NVIDIA, dtype, enabled=dtype != torch.float32):
            expected = passes(module, *at, Ledger(), recorded=launched), gradients(module)
        if not compiled:
            assert_same(found, expected)
        elif number >= 2:  # the first calls of a compiled model are not; its kernels add up in any order
            assert_same(found, expected, rtol=1e-3, atol=1e-5)
        for parameter, gradient in zip(module.parameters(), found[1], strict=True):
            parameter.grad = gradient
        optimizer.step()
        module.zero_grad()
    assert recorded.serves and not [one for one in caplog.records if one.name.startswith("app.training")]
