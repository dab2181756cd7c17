"""Stages of blocks: repeated, shared, recomputed, recycled; and nothing made that nothing reads."""

import pytest
import torch
import yaml
from torch import nn

from app.config.overrides import RECIPES
from app.config.validate import parse
from app.errors import UserError
from app.model.codesign import CodesignModel, ModelSettings
from app.model.heads import build_head
from app.model.stack import Stack, completed, plan
from app.model.trunk import Trunk, TrunkSettings
from app.phase import Phase, Phased
from tests.blocks.test_every_block import ablated, parts, state
from tests.factories import noisy_batch, perturb, results, tiny_model, tiny_recipe

SIZES = {"c_s": 16, "c_z": 8}
SMALL = {"block": "ipa", "num_heads": 2, "head_width": 4, "transformer_layers": 1, "transformer_heads": 2}
STILL = {**SMALL, "update_backbone": False}


def trunk(*stages: dict, **settings) -> Trunk:
    torch.manual_seed(3)
    return perturb(Trunk(TrunkSettings(stages=list(stages), **settings), SIZES, {"node"})).eval()


def same(found, expected, **tolerance) -> None:
    for name, value in parts(expected).items():
        torch.testing.assert_close(parts(found)[name], value, **{"atol": 0, "rtol": 0} | tolerance)


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    out = module(state())
    (out.node.square().sum() + out.frames.trans.square().sum()).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


# Repeating and sharing


def test_repeated_stages_interleave():
    model = trunk({"repeat": 2, "stages": [{**STILL, "depth": 2, "update_last_edge": True}, SMALL]})
    expected, order = state(), []
    for body in model.stages[0]:
        for stage in body.stages:
            for block in stage:
                expected = block(expected)
                order.append(block.updates_backbone)
    assert order == [False, False, True, False, False, True]
    same(model(state()), expected)


def test_repeats_nest():
    model = trunk({"repeat": 2, "stages": [{"repeat": 3, "stages": [STILL]}, SMALL]})
    blocks = [module for module in model.modules() if hasattr(module, "updates_backbone")]
    assert [block.updates_backbone for block in blocks] == [False, False, False, True] * 2


@pytest.mark.parametrize("stages", [
    [{**SMALL, "depth": 3, "share_weights": True}],
    [{"repeat": 3, "stages": [SMALL], "share_weights": True}],
])  # fmt: skip
def test_shared_weights_are_one_block_run_again_and_again(stages):
    model = trunk(*stages)
    (block,) = (module for module in model.modules() if hasattr(module, "updates_backbone"))
    same(model(state()), block(block(block(state()))))
    assert all(gradient.any() for gradient in gradients(model).values())


# Recomputing activations


@pytest.mark.parametrize("checkpoint", [True, "edge"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputed_activations_change_neither_values_nor_gradients(dropout, checkpoint):
    stage = {**SMALL, "depth": 3, "transformer_dropout": dropout}
    plain, recomputed = trunk(stage).train(), trunk({**stage, "checkpoint": checkpoint}).train()
    found = []
    for model in (plain, recomputed):
        torch.manual_seed(0)
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient), name


def kept(**settings) -> int:
    """Entries of all tensors that a stage keeps for the backward pass."""
    model, seen = trunk({**SMALL, "depth": 4, "update_last_edge": True, **settings}), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x.numel()) or x, lambda x: x):
        model(state())
    return sum(seen)


def test_recomputing_keeps_fewer_activations():
    assert kept(checkpoint=True) < 0.3 * kept()


def test_recomputing_the_edge_track_keeps_the_nodes_activations_only():
    assert kept(checkpoint=True) < kept(checkpoint="edge") < kept()
    assert kept(checkpoint="edge") < 1.5 * kept(update_edge=False)


EDGE_TRACKS = [
    {"block": "pairformer", "num_heads": 2, "pair_num_heads": 2, "pair_head_width": 4},
    {"block": "pairformer_noseq", "pair_num_heads": 2, "pair_head_width": 4},
    {"block": "triangle_attention", "pair_num_heads": 2, "pair_head_width": 4},
    {"block": "triangle_multiplication"},
    {"block": "double_attention", "num_descriptors": 4, "descriptor_width": 4, "condition_on_t": True},
]


@pytest.mark.parametrize("stage", EDGE_TRACKS, ids=lambda stage: stage["block"])
def test_every_edge_track_can_be_recomputed_dropout_included(stage):
    def run(**settings) -> tuple[dict[str, torch.Tensor], int]:
        model, seen = trunk({**stage, "dropout": 0.4, **settings}, SMALL).train(), []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x.numel()) or x, lambda x: x):
            return gradients(model), sum(seen)

    (expected, all_of_it), (found, less) = run(), run(checkpoint="edge")
    assert less < 0.9 * all_of_it
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_only_what_updates_edges_has_an_edge_track():
    with pytest.raises(UserError, match=r"stages\.0: checkpoint: edge .* geometric updates none there"):
        trunk({"block": "geometric", "checkpoint": "edge", "update_backbone": True})
    with pytest.raises(UserError, match="ipa updates none there: set checkpoint: true or false"):
        trunk({**SMALL, "update_edge": False, "checkpoint": "edge"})


# Recycling


def test_recycling_adds_what_the_pass_before_wrote_and_starts_from_the_same_frames():
    model = trunk({**SMALL, "depth": 2}, num_recycles=2)
    passes = Stack.forward
    given, previous = state(), None
    for _ in range(3):
        entry = given
        node = model.recycle.node(torch.zeros_like(given.node) if previous is None else previous.node)
        edge = model.recycle.edge(torch.zeros_like(given.edge) if previous is None else previous.edge)
        entry = entry.replace(
            node=given.node + node * given.node_mask[..., None], edge=given.edge + edge * given.edge_mask[..., None]
        )
        previous = passes(model, entry)
    same(model(given), previous)


def test_recycling_leaves_absent_rows_alone():
    model, given = trunk(SMALL, num_recycles=1), state()
    entered = model.recycle(given, model(given))
    assert not entered.node[given.node_mask == 0].any() and not entered.edge[given.edge_mask == 0].any()


def test_gradients_go_through_the_last_pass_only():
    model, counted = trunk(SMALL, num_recycles=3), []
    inner = model.stages[0][0]
    inner.register_forward_hook(lambda *_: counted.append(torch.is_grad_enabled()))
    found = gradients(model)
    assert counted == [False, False, False, True]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    assert {"recycle.node.weight", "recycle.node.bias"} <= found.keys()


def test_only_what_the_trunk_writes_is_recycled():
    assert trunk({**SMALL, "update_edge": False}, num_recycles=1).recycle.edge is None
    assert trunk(SMALL).recycle is None


def test_the_number_of_recycles_may_follow_the_phase():
    model, calls = trunk(SMALL, num_recycles={"train": 1, "infer": 3}), []
    model.stages[0][0].register_forward_hook(lambda *_: calls.append(1))

    def passes() -> int:
        calls.clear()
        model(state())
        return len(calls)

    assert (model.eval() and passes(), model.train() and passes()) == (4, 2)
    for part in model.modules():
        if isinstance(part, Phased):
            part.run_phase = Phase(is_training=False)
    assert passes() == 4


# Nothing in vain


def blocks_of(stages: list[dict], needed: set[str]) -> list[dict]:
    made = plan(completed(TrunkSettings(stages=stages).stages, SIZES, "stages"), SIZES, needed, "stages")
    return [settings.model_dump() for stage in made.stages for _, settings in stage.layers]


def test_the_last_edge_update_is_made_where_something_reads_it():
    updating = {**SMALL, "depth": 2, "update_last_edge": True}
    assert [block["update_edge"] for block in blocks_of([updating], {"node", "frames"})] == [True, False]
    assert [block["update_edge"] for block in blocks_of([updating], {"edge", "frames"})] == [True, True]
    followed = blocks_of([updating, {**SMALL, "update_edge": False}], {"node", "frames"})
    assert [block["update_edge"] for block in followed] == [True, True, False]


def test_shared_weights_update_edges_for_their_own_next_run():
    (block,) = blocks_of([{**SMALL, "depth": 3, "share_weights": True, "update_last_edge": True}], {"node"})
    assert block["update_edge"]
    (block,) = blocks_of([{**SMALL, "depth": 1, "share_weights": True, "update_last_edge": True}], {"node"})
    assert not block["update_edge"]


def test_a_model_without_sequence_head_has_no_part_for_it():
    model = tiny_model(head={"kind": "none"})
    prediction = model(noisy_batch())
    assert prediction.pred_logits is None
    assert torch.equal(prediction.pred_aatypes, noisy_batch().aatypes_t)
    (prediction.pred_trans.square().sum() + prediction.pred_rotmats.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_a_stage_that_nothing_reads_is_refused():
    stages = [tiny_recipe()["model"]["trunk"]["stages"][0], {**STILL, "update_edge": False}]
    with pytest.raises(UserError, match=r"model\.trunk\.stages\.1: nothing reads the node that ipa writes there"):
        tiny_model(head={"kind": "none"}, trunk={"stages": stages})


# Refusals


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"trunk": {"stages": [{"repeat": 0, "stages": [SMALL]}]}}, "trunk.stages.0.repeat=0"),
        ({"trunk": {"stages": [{"repeat": 2, "stages": []}]}}, "trunk.stages.0.stages"),
        ({"trunk": {"stages": [{"repeat": 2, "stages": [{"block": "nope"}]}]}}, "'nope' is not a block type"),
        (
            {"trunk": {"stages": [{"repeat": 2, "stages": [SMALL], "depth": 3}]}},
            "0: depth unknown beside repeat",
        ),
        ({"trunk": {"stages": [{"repeat": 2, "stages": [STILL]}]}}, "no stage updates the backbone"),
        ({"trunk": {"stages": [{**SMALL, "depth": 0}]}}, "trunk.stages.0.depth=0"),
        ({"trunk": {"stages": [SMALL], "num_recycles": -1}}, "model.trunk.num_recycles=-1"),
        ({"trunk": {"stages": [SMALL], "num_recycles": {"train": 0, "infer": 2}}}, "model.trunk.num_recycles: 2 in"),
        ({"c_z": None}, "model.trunk.stages.0: ipa needs the edge representation, and model.c_z=null"),
        ({"head": {"kind": "refined", "stages": [SMALL]}}, "model.head.stages: only the trunk moves frames"),
        ({"head": {"kind": "refined", "stages": []}}, "model.head.stages"),
        ({"trunk": {"stages": [{**SMALL, "transformer_dropout": {"train": 0.1}}]}}, "transformer_dropout"),
        ({"trunk": {"stages": [{**SMALL, "transformer_dropout": 1.0}]}}, "transformer_dropout"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_setting(model, says):
    settings = {"c_s": 16, "c_z": 8, "trunk": {"stages": [SMALL]}} | model
    with pytest.raises(UserError) as caught:
        CodesignModel(parse(ModelSettings, settings, where="model"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refined_head_reads_the_predicted_frames():
    head = perturb(build_head({"kind": "refined", "stages": [{**STILL, "update_edge": False}]}, SIZES, 21)).eval()
    assert head.needs == {"node", "edge", "frames"}
    given = state()
    frames = given.frames
    moved = given.replace(frames=type(frames)(frames.rotmats, frames.trans * 1.5))
    assert not torch.allclose(head(moved), head(given), atol=1e-3)


def test_settings_of_a_model_survive_their_own_dump():
    stages = [{"repeat": 2, "stages": [{**SMALL, "transformer_dropout": {"train": 0.3, "infer": 0.1}}]}]
    made = tiny_model(trunk={"stages": stages, "num_recycles": {"train": 1, "infer": 2}}).settings
    assert parse(ModelSettings, made.model_dump(mode="json")) == made
    assert results(CodesignModel(made).eval()(noisy_batch()))


def test_repeats_update_edges_for_those_that_read_them_next():
    stages = [{"repeat": 3, "stages": [{**SMALL, "update_last_edge": True}]}]
    (repeated,) = plan(TrunkSettings(stages=stages).stages, SIZES, {"node", "frames"}, "stages").stages
    assert [one.stages[0].layers[0][1].update_edge for one in repeated.layers] == [True, True, False]
    stages[0]["share_weights"] = True
    (repeated,) = plan(TrunkSettings(stages=stages).stages, SIZES, {"node", "frames"}, "stages").stages
    (shared,) = repeated.layers
    assert shared.stages[0].layers[0][1].update_edge and repeated.times == 3


def test_shared_weights_are_those_of_the_first_block_of_the_stage():
    """Of a stage whose last block would leave the edges alone, the others do not."""
    (block,) = blocks_of([{**SMALL, "depth": 3, "share_weights": True}], {"node", "frames"})
    assert block["update_edge"]


def test_a_shared_repeat_may_write_for_its_own_next_run_alone():
    edges = {**SMALL, "update_backbone": False, "update_last_edge": True}
    stages = [{**SMALL, "update_edge": False}, {"block": "pairformer_noseq", "pair_num_heads": 2, "pair_head_width": 4}]
    model = trunk({"repeat": 3, "share_weights": True, "stages": stages})
    assert all(gradient.any() for gradient in gradients(model).values())
    with pytest.raises(UserError, match=r"stages\.0\.stages\.1: nothing reads the edge that pairformer_noseq writes"):
        trunk({"repeat": 1, "share_weights": True, "stages": stages})
    assert trunk({"repeat": 2, "share_weights": True, "stages": [edges, SMALL]})


EDGES = {"block": "double_attention", "num_descriptors": 2, "descriptor_width": 2}
MOVES = {"block": "geometric", "num_heads": 2, "update_backbone": True}


@pytest.mark.parametrize("stages", [
    [{**EDGES, "depth": 2, "share_weights": True}, MOVES],
    [{"repeat": 2, "share_weights": True, "stages": [EDGES, MOVES]}],
    [{"repeat": 2, "share_weights": True, "stages": [EDGES, EDGES, MOVES]}],
    [SMALL, {**EDGES, "depth": 2, "share_weights": True}, MOVES],
    [{"repeat": 2, "stages": [EDGES, MOVES]}],
])  # fmt: skip
def test_a_block_that_only_itself_reads_is_in_vain(stages):
    with pytest.raises(UserError, match="nothing reads the edge that double_attention writes there"):
        trunk(*stages)


@pytest.mark.parametrize("stages", [
    [SMALL, EDGES],
    [{**SMALL, "update_last_edge": True}, {"block": "pair_bias", "num_heads": 2}],
    [{"block": "pairformer", "num_heads": 2, "pair_num_heads": 2, "pair_head_width": 4}, MOVES],
    [MOVES, {"block": "pair_bias", "num_heads": 2}, EDGES],
])  # fmt: skip
@pytest.mark.parametrize("repeat", [2, 3])
def test_all_weights_of_a_shared_repeat_matter(stages, repeat):
    model = trunk({"repeat": repeat, "share_weights": True, "stages": stages})
    assert all(gradient is not None and gradient.any() for gradient in gradients(model).values())


def test_what_is_not_updated_is_not_recycled():
    assert trunk({**SMALL, "depth": 1, "update_last_edge": True}, num_recycles=1).recycle.edge is None


def test_a_few_lines_cannot_mean_billions_of_blocks():
    stages: list[dict] = [SMALL]
    for _ in range(6):
        stages = [{"repeat": 100, "stages": stages}]
    with pytest.raises(UserError, match=r"trunk\.stages: 1000000000000 blocks are more than anyone trains"):
        tiny_model(trunk={"stages": stages})
    with pytest.raises(UserError, match="more than anyone trains"):
        tiny_model(trunk={"stages": [{**SMALL, "depth": 10**9}]})


def test_in_the_interleaved_trunk_later_edges_see_how_the_frames_have_moved():
    (stage,) = yaml.safe_load((RECIPES / "model" / "trunk" / "interleaved.yaml").read_text())["stages"]
    for inner in stage["stages"]:
        inner |= {"num_heads": 2} | (
            {"pair_num_heads": 2, "pair_head_width": 4} if inner["block"] == "pairformer" else {}
        )
    model, seen = trunk({**stage, "repeat": 2}), []
    last = [part for part in model.modules() if part.__class__.__module__ == "app.blocks.pairformer"][-1]
    last.register_forward_hook(lambda module, given, out: seen.append(out.edge))
    model(state())
    model(ablated(state(), "frames"))
    assert not torch.allclose(seen[0], seen[1], atol=1e-4)
