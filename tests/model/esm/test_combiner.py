"""The combiner in the model: what it reads and writes, what trains, what is refused."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from app.chem.residues import MASK_TOKEN
from app.errors import UserError
from app.model.esm import build_esm, completed_esm
from app.model.esm.combiner import LayerMix
from app.model.esm.settings import EsmSettings
from tests.factories import generator, noisy_batch, padded, perturb, results, rows, tiny_model
from tests.mac import StandIn
from tests.memory import NoReadBack

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"c_s": 16, "c_z": 8}
REFINE = [{"block": "ipa", "update_backbone": False, "num_heads": 2, "head_width": 4, "num_qk_points": 2,
           "num_v_points": 3, "transformer_heads": 2, "transformer_layers": 1, "transformer_dropout": 0.0,
           "update_last_edge": True}]  # fmt: skip
VARIANTS = {
    "node": {"mode": "node"},
    "node refined": {"mode": "node", "refine": REFINE},
    "node and edge": {"mode": "node_and_edge", "backend": "transformers"},
    "node and edge refined": {"mode": "node_and_edge", "backend": "transformers", "refine": REFINE},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def config(esm, variant: str = "node", **changes) -> dict:
    return {"kind": "esm2", "name": str(esm), **VARIANTS[variant], **changes}


def model(esm, variant: str = "node", **changes):
    return tiny_model(scale=0.2, esm=config(esm, variant, **changes))


def close(found, expected, where=None, **tolerance):
    for name, value in results(expected).items():
        here = slice(None) if where is None else where
        cut = results(found)[name][:, : value.shape[1]]
        torch.testing.assert_close(cut[here], value[here], **{"atol": 1e-4, "rtol": 1e-4} | tolerance)


def build(esm, variant: str = "node", needed=("node", "edge", "frames"), sizes=SIZES, **changes):
    return build_esm(completed_esm(config(esm, variant, **changes), sizes), sizes, frozenset(needed))


@every_variant
def test_every_parameter_is_trained_and_the_language_model_is_not_among_them(esm, variant):
    made = model(esm, variant).train()
    prediction = made(noisy_batch())
    frames = prediction.pred_trans.square().sum() + (prediction.pred_rotmats**3).sum()
    (frames + (prediction.pred_logits * torch.linspace(1, 2, 21)).sum()).backward()
    silent = {name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    # Multiflow's IPA adds a number a head to all of its logits, which softmax cancels: what is there is rounding.
    assert silent <= {name for name in silent if name.endswith("attention.pair_bias.bias")}
    assert all(p.grad.isfinite().all() for p in made.parameters())
    shapes = {name for name in made.state_dict() if name.startswith("esm.")}
    assert {name.split(".")[1] for name in shapes} <= {"mix", "to_node", "to_edge", "refine"}
    assert not made.esm.language._loaded.model.training  # although the model is in training


@every_variant
def test_padding_and_batch_mates_change_nothing(esm, variant):
    made, batch = model(esm, variant), noisy_batch(3)
    real, expected = batch.res_mask.bool(), made(batch)
    close(made(padded(batch, 7)), expected, real)
    for index in range(3):
        alone = made(rows(batch, index))
        for name, value in results(alone).items():
            torch.testing.assert_close(results(expected)[name][[index]], value, atol=1e-4, rtol=1e-4)


@every_variant
def test_absent_residues_may_hold_anything(esm, variant):
    made, batch = model(esm, variant), noisy_batch()
    absent = batch.res_mask == 0
    other = {"aatypes_t": 3, "res_idx": 1000, "chain_idx": 9, "diffuse_mask": 1.0}
    rubbish = {name: torch.where(absent, value, getattr(batch, name)) for name, value in other.items()}
    close(made(dataclasses.replace(batch, **rubbish)), made(batch), ~absent)


@every_variant
def test_the_tokens_matter_by_way_of_the_language_model(esm, variant):
    """The model has no other sight of them here."""
    blind = {"embed_tokens": False, "c_position": 8, "c_time": 8}
    made = tiny_model(scale=0.3, node_embed=blind, esm=config(esm, variant))
    without = tiny_model(scale=0.3, node_embed=blind)
    batch = noisy_batch()
    other = dataclasses.replace(batch, aatypes_t=(batch.aatypes_t + 5) % 20)
    assert torch.equal(without(other).pred_logits, without(batch).pred_logits)
    assert not torch.allclose(made(other).pred_logits, made(batch).pred_logits, atol=1e-3)


def test_attention_maps_matter_to_edges_alone(esm):
    state = tiny_model().embed(noisy_batch())
    node, both = perturb(build(esm)), perturb(build(esm, "node and edge"))
    both.load_state_dict(node.state_dict(), strict=False)
    after = node(state, noisy_batch())
    assert torch.equal(after.edge, state.edge) and after.frames is state.frames
    changed = both(state, noisy_batch())
    moved = ~torch.isclose(changed.edge, state.edge).all(-1)
    assert torch.equal(moved, state.edge_mask.bool())
    assert torch.equal((after.node != state.node).any(-1), state.node_mask.bool())
    torch.testing.assert_close(changed.node, after.node, atol=1e-4, rtol=1e-4)


def test_an_edge_is_given_the_attention_of_its_first_residue_to_its_second(esm):
    """edge[b, i, j] from maps[b, i, j]; and the maps know the direction."""
    state, batch = tiny_model().embed(noisy_batch()), noisy_batch()
    both = perturb(build(esm, "node and edge"))
    maps = both.language(batch, torch.device("cpu")).maps
    assert not torch.allclose(maps, maps.transpose(1, 2), atol=1e-3)
    added = both(state, batch).edge - state.edge
    for b, i, j in ((0, 1, 4), (0, 4, 1), (1, 2, 7), (1, 7, 2), (1, 3, 3)):
        torch.testing.assert_close(added[b, i, j], both.to_edge(maps[b, i, j]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["node", "node and edge"])
def test_edges_are_there_for_the_stages_after_it_alone(esm, mode):
    """The trunk reads none: without a stage that does there are no edges, with one they are made and trained."""
    trunk = {"stages": [{"block": "flash_ipa", "num_heads": 2, "head_width": 4}]}
    refine = [{"block": "pair_bias", "num_heads": 2}]
    assert tiny_model(trunk=trunk, esm=config(esm)).embed(noisy_batch()).edge is None
    made = tiny_model(scale=0.2, trunk=trunk, esm=config(esm, mode, refine=refine))
    assert made.trunk.needs == {"node", "frames"} and made.embed(noisy_batch()).edge is not None
    prediction = made(noisy_batch())
    frames = prediction.pred_trans.square().sum() + (prediction.pred_rotmats**3).sum()
    (frames + (prediction.pred_logits * torch.linspace(1, 2, 21)).sum()).backward()
    assert {"node_embed", "edge_embed", "esm", "trunk", "head"} == {name for name, _ in made.named_children()}
    assert not [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


@pytest.mark.parametrize("variant", ["node", "node and edge"])
def test_a_fresh_model_starts_as_if_without(esm, variant):
    torch.manual_seed(0)
    fresh, state = build(esm, variant), tiny_model().embed(noisy_batch())
    after = fresh(state, noisy_batch())
    assert torch.equal(after.node, state.node) and torch.equal(after.edge, state.edge)
    (after.node * torch.randn(after.node.shape, generator=generator())).sum().backward()
    assert fresh.to_node.norm.weight.grad.any()  # and can leave that


def test_a_design_starts_from_masks(esm):
    made, batch = model(esm), noisy_batch()
    start = dataclasses.replace(batch, aatypes_t=torch.full_like(batch.aatypes_t, MASK_TOKEN))
    assert all(value.isfinite().all() for value in results(made(start)).values())


def test_layers_are_averaged():
    mix, hidden = LayerMix(4), torch.randn(4, 2, 5, 3, generator=generator())
    torch.testing.assert_close(mix(hidden), hidden.mean(0))
    with torch.no_grad():
        mix.weights[2] = 50.0
    torch.testing.assert_close(mix(hidden), hidden[2])
    with torch.autocast("cpu", torch.bfloat16):
        assert mix(hidden.bfloat16()).dtype == torch.float32


@every_variant
def test_under_autocast_it_is_about_the_same(esm, variant):
    made, batch = model(esm, variant), noisy_batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(batch)
    torch.testing.assert_close(found.pred_trans, made(batch).pred_trans, atol=1.5, rtol=0.1)


def test_one_reading_serves_self_conditioning_too(esm, monkeypatch):
    made, batch, calls = model(esm), noisy_batch(), []
    run = made.esm.language._run
    monkeypatch.setattr(made.esm.language, "_run", lambda *given: (calls.append(1), run(*given))[1])
    first = made(batch)
    made(dataclasses.replace(batch, trans_sc=first.pred_trans.detach(), aatypes_sc=first.logits_to_see().detach()))
    assert len(calls) == 1
    made.to(torch.float32)  # a move lets go of what was kept
    assert made.esm.language._last is None


def test_copies_are_whole(esm):
    made, batch = model(esm), noisy_batch()
    expected = made(batch)
    close(copy.deepcopy(made)(batch), expected, atol=0, rtol=0)


def test_it_is_counted_and_built_without_weights(esm):
    with torch.device("meta"):
        made = build(esm, "node and edge", refine=REFINE)
        large = build("esm2_15b", "node")
    assert made.language._loaded is None
    assert large.to_node.linear.weight.shape == (16, 5120) and large.mix.weights.shape == (49,)


def test_the_config_is_completed_once_and_for_all(esm):
    full = completed_esm(config(esm, refine=[{"block": "ipa", "update_backbone": False}]), SIZES)
    assert next(iter(full)) == "kind" and full["linker"] == 25 and full["refine"][0]["num_heads"] == 8
    assert completed_esm(full, SIZES) == full
    assert completed_esm({"kind": "none"}, SIZES) == {"kind": "none"}
    assert build_esm({"kind": "none"}, SIZES, frozenset({"node"})) is None


@pytest.mark.parametrize("name", ["node", "node_and_edge"])
def test_the_recipes_have_every_setting_in_order(name):
    written = yaml.safe_load((ROOT / f"recipes/model/esm/{name}.yaml").read_text())
    recipe = [field for field in EsmSettings.model_fields if field != "size"]  # which is read off the model
    assert list(written) == recipe
    assert written["mode"] == name
    differ = {"name", "mode", "refine"} | ({"backend"} if name == "node_and_edge" else set())
    assert all(
        written[key] == info.default for key, info in EsmSettings.model_fields.items() if key not in {*differ, "size"}
    )


@pytest.mark.parametrize("variant", ["node", "node and edge"])
def test_on_a_mac_it_does_the_same(esm, variant):
    made, batch = model(esm, variant), noisy_batch()
    expected = made(batch)
    with StandIn():
        found = made.to("mps")(batch.to("mps"))
        found.pred_trans.sum().backward()
        moved = {name: value.cpu() for name, value in results(found).items()}
        assert all(p.grad is not None for p in made.esm.to_node.parameters())
    for name, value in results(expected).items():
        torch.testing.assert_close(moved[name], value, atol=1e-4, rtol=1e-4)


def test_what_matters_before_it(esm):
    assert build(esm, needed={"node"}).needs == {"node"}
    node_only = [REFINE[0] | {"update_edge": False, "update_last_edge": False}]
    assert build(esm, needed={"node"}, refine=node_only).needs == {"node", "edge", "frames"}
    refined = build(esm, "node and edge", needed={"node"}, refine=node_only)  # read by the stack, if not by the trunk
    assert refined.needs == {"node", "edge", "frames"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "esm3"}, r"model\.esm\.kind: 'esm3' is not a language model; choose one of none, esm2"),
        ({"kind": ["esm2"]}, r"model\.esm\.kind: \['esm2'\] is not a language model"),
        ({"mode": "edge"}, r"model\.esm\.mode='edge'"),
        ({"mode": "node_and_edge"}, r"backend=faplm does not give: set model\.esm\.backend=transformers"),
        ({"precision": "float64"}, r"model\.esm\.precision='float64'"),
        ({"linker": 0}, r"model\.esm\.linker=0"),
        ({"nmae": "x"}, r"model\.esm\.nmae is unknown: did you mean name"),
        ({"name": "esm2_7m"}, r"model\.esm\.name=esm2_7m: neither"),
        ({"refine": [{"block": "nope"}]}, r"'nope' is not a block type"),
        ({"refine": [{"block": "ipa"}]}, r"model\.esm\.refine: only the trunk moves frames"),
        ({"refine": [{"block": "ipa", "nmu_heads": 1}]}, r"model\.esm\.refine\.0\.nmu_heads"),
    ],
    ids=str,
)
def test_mistakes_are_told_in_a_line(esm, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        build(esm, **changes)
    assert "\n" not in str(caught.value)


def test_what_nothing_reads_is_not_made(esm):
    with pytest.raises(UserError, match=r"model\.esm\.mode=node_and_edge: nothing reads the edge representation"):
        build(esm, "node and edge", needed={"node", "frames"})
    with pytest.raises(UserError, match=r"model\.esm\.mode=node: nothing reads the node"):
        build(esm, needed={"edge"})
    with pytest.raises(UserError, match=r"model\.esm\.mode=node_and_edge.*model\.c_z=null"):
        build(esm, "node and edge", needed={"node"}, sizes={"c_s": 16, "c_z": None})
    assert build(esm, needed={"node"}, sizes={"c_s": 16, "c_z": None}).to_edge is None


@every_variant
@pytest.mark.parametrize("sequence_given", [False, True])
def test_what_is_fixed_in_sampling_changes_nothing(esm, variant, sequence_given, monkeypatch):
    made, batch = model(esm, variant), noisy_batch()
    state = tiny_model(scale=0.2).embed(batch)
    plain, fixed, calls, run = (
        copy.deepcopy(made.esm),
        made.esm.fixed(batch, sequence_given),
        [],
        made.esm.language._run,
    )
    monkeypatch.setattr(made.esm.language, "_run", lambda *given: (calls.append(1), run(*given))[1])
    for step in range(2):
        tokens = batch.aatypes_t if sequence_given else (batch.aatypes_t + step) % 20
        later = dataclasses.replace(batch, aatypes_t=tokens, trans_t=batch.trans_t + step)
        with NoReadBack():
            found = made.esm(state, later, fixed)
        assert len(calls) == (0 if sequence_given else step + 1)
        expected = plain(state, later)
        assert torch.equal(found.node, expected.node) and torch.equal(found.edge, expected.edge)
