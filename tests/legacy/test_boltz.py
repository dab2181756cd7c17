"""Boltz's layers in our blocks: golden numbers, faults, and checkpoints to start from."""

import collections
import os
import re
import warnings

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from app.blocks import Block, build_block
from app.errors import UserError
from app.legacy import boltz
from app.types import Frames, TrunkState
from tests.factories import generator, perturb, tiny_model

SIZES = {"c_s": 48, "c_z": 32, "pair_num_heads": 4, "pair_head_width": 8}
PARTS = {
    "tri_mul_out": "pair_track.multiplication.outgoing",
    "tri_mul_in": "pair_track.multiplication.incoming",
    "tri_att_start": "pair_track.attention.starting",
    "tri_att_end": "pair_track.attention.ending",
    "transition_z": "pair_track.transition",
    "attention": "node_track.attention",
    "transition_s": "node_track.transition",
}


@pytest.fixture(scope="module")
def golden(shared) -> dict[str, torch.Tensor]:
    return load_file(shared / "boltz_pairformer/golden.safetensors")


def under(golden: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def made(name: str) -> Block:
    own = {"num_heads": 4} if name == "pairformer" else {}
    return perturb(build_block(name, **SIZES, **own)).eval()


def loaded(golden: dict[str, torch.Tensor], name: str) -> Block:
    block = made(name)
    boltz.load_layer(block, under(golden, f"{name}.weight."))
    return block


def state(golden: dict[str, torch.Tensor]) -> TrunkState:
    mask = golden["in.mask"]
    size, length = mask.shape
    frames = Frames(torch.eye(3).expand(size, length, 3, 3), torch.zeros(size, length, 3))
    return TrunkState(
        node=golden["in.s"].clone().requires_grad_(),
        edge=golden["in.z"].clone().requires_grad_(),
        frames=frames,
        node_mask=mask,
        edge_mask=mask[:, :, None] * mask[:, None],
        t=torch.zeros(size, 3),
    )


def masked(given: TrunkState, value: torch.Tensor) -> torch.Tensor:
    return value * (given.node_mask if value.dim() == 3 else given.edge_mask)[..., None]


@pytest.mark.parametrize("name", ["pairformer", "pairformer_noseq"])
def test_golden_outputs_and_every_step(golden, name):
    block, given, steps = loaded(golden, name), state(golden), {}
    for theirs, ours in PARTS.items():
        if name == "pairformer" or ours.startswith("pair_track"):
            block.get_submodule(ours).register_forward_hook(lambda *call, step=theirs: steps.update({step: call[-1]}))
    out = block(given)
    steps["tri_att_end"] = steps["tri_att_end"].transpose(1, 2)
    expected = under(golden, f"{name}.step.")
    assert steps.keys() == expected.keys()
    for step, value in expected.items():
        torch.testing.assert_close(masked(given, steps[step]), masked(given, value), atol=1e-4, rtol=0, msg=step)
    ends = {"s": out.node, "z": out.edge}
    for key, value in under(golden, f"{name}.out.").items():
        torch.testing.assert_close(masked(given, ends[key]), masked(given, value), atol=1e-4, rtol=0)


def test_golden_gradients(golden):
    block, given = loaded(golden, "pairformer"), state(golden)
    out = block(given)
    (masked(given, out.node).square().sum() + masked(given, out.edge).square().sum()).backward()
    for key, leaf in {"s": given.node, "z": given.edge}.items():
        expected = golden[f"pairformer.grad.{key}"]
        assert (leaf.grad - expected).norm() <= 1e-3 * expected.norm()
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-3, atol=1e-3 * expected.abs().mean().item())


def test_every_fault_of_a_layer_is_listed_and_the_block_left_alone(golden):
    block, tensors = made("pairformer"), under(golden, "pairformer.weight.")
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    tensors["transition_s.fc1.weight"] = torch.zeros(3, 48)
    tensors["tri_mul_out.p_in.bias"] = torch.zeros(64)
    del tensors["attention.proj_q.bias"]
    with pytest.raises(UserError) as caught:
        boltz.load_layer(block, tensors)
    assert str(caught.value) == (
        "the Boltz layer does not fit the block: missing attention.proj_q.bias; unexpected tri_mul_out.p_in.bias; "
        "transition_s.fc1.weight has shape [3, 48], expected [192, 48]"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
    with pytest.raises(UserError, match=r"unexpected attention\.proj_g\.weight"):
        boltz.load_layer(made("pairformer_noseq"), under(golden, "pairformer.weight."))


# Checkpoints

C_S, C_Z, HEADS, PAIR_HEADS, WIDTH = 16, 8, 4, 2, 4
STAGE = {"pair_num_heads": PAIR_HEADS, "pair_head_width": WIDTH, "dropout": 0.0}
IPA = {"block": "ipa", "num_heads": 2, "head_width": 4, "num_qk_points": 2, "num_v_points": 3,
       "transformer_heads": 2, "transformer_layers": 1}  # fmt: skip


def model(*stages: dict):
    return tiny_model(trunk={"stages": [*stages, IPA]})


def pairformer(depth: int = 1, **changes) -> dict:
    return {"block": "pairformer", "depth": depth, "num_heads": HEADS, **STAGE, **changes}


def layer(seed: int, c_s: int = C_S, c_z: int = C_Z, heads: int = HEADS) -> dict[str, torch.Tensor]:
    """A layer with Boltz's names and shapes, written down apart from the code that reads it."""
    source, wide = generator(seed), PAIR_HEADS * WIDTH
    shapes = {"pre_norm_s.weight": (c_s,), "pre_norm_s.bias": (c_s,), "attention.proj_q.bias": (c_s,),
              "attention.proj_z.0.weight": (c_z,), "attention.proj_z.0.bias": (c_z,),
              "attention.proj_z.1.weight": (heads, c_z)}  # fmt: skip
    shapes |= {f"attention.proj_{x}.weight": (c_s, c_s) for x in "qkvgo"}
    for name in ("tri_mul_out", "tri_mul_in"):
        shapes |= {f"{name}.{norm}.{kind}": (c_z,) for norm in ("norm_in", "norm_out") for kind in ("weight", "bias")}
        shapes |= {f"{name}.{x}_in.weight": (2 * c_z, c_z) for x in "pg"}
        shapes |= {f"{name}.{x}_out.weight": (c_z, c_z) for x in "pg"}
    for name in ("tri_att_start", "tri_att_end"):
        shapes |= {f"{name}.layer_norm.weight": (c_z,), f"{name}.layer_norm.bias": (c_z,)}
        shapes |= {f"{name}.linear.weight": (PAIR_HEADS, c_z), f"{name}.mha.linear_o.weight": (c_z, wide)}
        shapes |= {f"{name}.mha.linear_{x}.weight": (wide, c_z) for x in "qkvg"}
    for name, width in (("transition_z", c_z), ("transition_s", c_s)):
        shapes |= {f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)}
        shapes |= {f"{name}.{x}.weight": (4 * width, width) for x in ("fc1", "fc2")}
        shapes |= {f"{name}.fc3.weight": (width, 4 * width)}
    return {name: torch.randn(shape, generator=source) for name, shape in shapes.items()}


def written(path, layers: dict[int, dict], prefix: str = "pairformer_module.layers", **more) -> str:
    """A Lightning checkpoint with these layers among Boltz's other modules."""
    tensors = collections.OrderedDict({"s_init.weight": torch.zeros(2, 2), "msa_module.layers.0.x": torch.zeros(1)})
    for index, layer in layers.items():
        tensors.update({f"{prefix}.{index}.{name}": tensor for name, tensor in layer.items()})
    settings = {"pairformer_args": OmegaConf.create({"num_blocks": len(layers)}), "ema": True}
    torch.save({"epoch": 1, "state_dict": tensors, "hyper_parameters": settings, **more}, path)
    return str(path)


def is_layer(block: Block, tensors: dict[str, torch.Tensor], track: str) -> bool:
    pairs = {
        "pair_track": ("pair_track.attention.ending.q.weight", "tri_att_end.mha.linear_q.weight"),
        "node_track": ("node_track.transition.out.weight", "transition_s.fc3.weight"),
    }
    ours, theirs = pairs[track]
    return torch.equal(block.state_dict()[ours], tensors[theirs])


def test_layers_fill_the_blocks_of_all_stages_in_order_and_the_rest_is_new(tmp_path):
    repeated = {"repeat": 2, "stages": [pairformer(), {"block": "pairformer_noseq", **STAGE}]}
    found, layers = model(repeated, pairformer(2)), {index: layer(index) for index in (2, 10, 0, 1, 11)}
    report = boltz.start_from(found, written(tmp_path / "boltz.ckpt", layers))
    names = [f"trunk.stages.0.{i}.stages.{j}.0" for i in (0, 1) for j in (0, 1)] + ["trunk.stages.1.0"]
    blocks = [found.get_submodule(name) for name in names]
    for block, index in zip(blocks, sorted(layers), strict=True):
        assert is_layer(block, layers[index], "pair_track")
        if block.settings.writes >= {"node"}:
            assert is_layer(block, layers[index], "node_track")
    assert report.source == "state_dict.pairformer_module.layers"
    assert [report.taken[f"{name}.pair_track"] for name in names] == [0, 1, 2, 10, 11]
    assert [name for name in report.taken if name.endswith("node_track")] == [
        f"{name}.node_track" for name in (names[0], names[2], names[4])
    ]
    assert report.skipped == {}
    assert report.new == ["trunk.stages.1.1"]
    assert "trunk.stages.1.1: new" in str(report)
    boltz.load_layer(blocks[0], layers[11])
    assert is_layer(blocks[0], layers[11], "node_track")


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ({"c_s": 24}, r"pre_norm_s.weight has shape \[24\], expected \[16\] \(and \d+ more\)"),
        ({"heads": 8}, r"attention.proj_z.1.weight has shape \[8, 8\], expected \[4, 8\]"),
    ],
    ids=["node width", "node heads"],
)
def test_the_pair_track_is_taken_alone_where_nodes_do_not_fit(tmp_path, theirs, reason):
    found, layers = model(pairformer(2)), {index: layer(index, **theirs) for index in range(3)}
    nodes = [found.trunk.stages[0][index].node_track for index in (0, 1)]
    before = [tensor.clone() for track in nodes for tensor in track.state_dict().values()]
    report = boltz.start_from(found, written(tmp_path / "boltz.ckpt", layers))
    assert all(is_layer(found.trunk.stages[0][index], layers[index], "pair_track") for index in (0, 1))
    assert report.taken == {f"trunk.stages.0.{index}.pair_track": index for index in (0, 1)}
    assert list(report.skipped) == [f"trunk.stages.0.{index}.node_track" for index in (0, 1)]
    for index, told in enumerate(report.skipped.values()):
        assert re.fullmatch(rf"layer {index} does not fit: {reason}.*", told)
    after = [tensor for track in nodes for tensor in track.state_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.model.", "ema_model."])
def test_what_stands_in_front_of_the_layers_does_not_matter(tmp_path, prefix):
    found, first = model({"block": "pairformer_noseq", **STAGE}), layer(0)
    path = written(tmp_path / "boltz.ckpt", {0: first}, f"{prefix}pairformer_module.layers")
    report = boltz.start_from(found, path)
    assert report.source == f"state_dict.{prefix}pairformer_module.layers"
    assert report.taken == {"trunk.stages.0.0.pair_track": 0}
    assert is_layer(found.trunk.stages[0][0], first, "pair_track")


def test_a_compiled_module_and_a_bare_state_dict_are_read_too(tmp_path):
    found, first = model(pairformer()), layer(0)
    tensors = {f"pairformer_module._orig_mod.layers.0.{name}": tensor for name, tensor in first.items()}
    torch.save(tensors, tmp_path / "bare.pt")
    assert boltz.start_from(found, tmp_path / "bare.pt").source == "pairformer_module._orig_mod.layers"
    assert is_layer(found.trunk.stages[0][0], first, "node_track")


def test_averaged_weights_go_before_the_last_ones(tmp_path):
    found, last, averaged = model(pairformer()), layer(0), layer(1)
    ema = {"ema_weights": {f"pairformer_module.layers.0.{name}": tensor for name, tensor in averaged.items()}}
    report = boltz.start_from(found, written(tmp_path / "boltz.ckpt", {0: last}, ema=ema))
    assert report.source == "ema.ema_weights.pairformer_module.layers"
    assert is_layer(found.trunk.stages[0][0], averaged, "pair_track")


def test_a_damaged_layer_is_skipped_with_the_reason(tmp_path):
    found, layers = model(pairformer(3)), {index: layer(index) for index in range(3)}
    del layers[0]["tri_mul_in.p_in.weight"]
    layers[1]["transition_z.fc3.weight"] = "no tensor"
    layers[2]["attention.norm_s.weight"] = torch.zeros(C_S)  # a name of Boltz-1
    report = boltz.start_from(found, written(tmp_path / "boltz.ckpt", layers))
    assert report.skipped == {
        "trunk.stages.0.0.pair_track": "layer 0 does not fit: missing tri_mul_in.p_in.weight",
        "trunk.stages.0.1.pair_track": "layer 1 does not fit: transition_z.fc3.weight is no dense tensor of "
        "floating-point numbers",
        "trunk.stages.0.2.node_track": "layer 2 does not fit: unexpected attention.norm_s.weight",
    }
    assert str(report).count("\n") == 5


def test_where_nothing_fits_or_nothing_is_there_one_line_says_so(tmp_path):
    def refused(found, path) -> str:
        before = {name: tensor.clone() for name, tensor in found.state_dict().items()}
        with pytest.raises(UserError) as caught:
            boltz.start_from(found, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in found.state_dict().items())
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path))
        return str(caught.value)

    good = written(tmp_path / "good.ckpt", {0: layer(0)})
    assert "no stage of model.trunk.stages is a pairformer" in refused(model(), good)
    wide = written(tmp_path / "wide.ckpt", {0: layer(0, c_z=24)})
    assert "nothing in it fits the model; trunk.stages.0.0.pair_track: layer 0" in refused(model(pairformer()), wide)
    other = written(tmp_path / "other.ckpt", {})
    assert "holds no pairformer_module.layers" in refused(model(pairformer()), other)
    assert "no such checkpoint file" in refused(model(pairformer()), tmp_path / "absent.ckpt")


class Calls:
    """Pickles as a call of os.mkdir: what a hostile file does on being loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_checkpoint_is_refused_and_nothing_in_it_is_run(tmp_path):
    path = written(tmp_path / "hostile.ckpt", {0: layer(0)}, callbacks={"x": Calls(tmp_path / "canary")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=r"hostile\.ckpt: refused, it names .*mkdir"):
            boltz.start_from(model(pairformer()), path)
    assert not (tmp_path / "canary").exists()


def test_what_is_no_layer_or_fills_no_such_block_is_told():
    for block, tensors in ((build_block("ipa", c_s=16, c_z=8), {}), (build_block("pairformer_noseq", c_z=8), [1])):
        with pytest.raises(UserError, match="fills a pairformer or pairformer_noseq block and nothing else"):
            boltz.load_layer(block, tensors)


def test_numbers_that_are_not_finite_are_no_weights():
    block = build_block("pairformer_noseq", c_z=8, pair_num_heads=2, pair_head_width=4)
    layer = {boltz._theirs(name): torch.full_like(tensor, torch.nan) for name, tensor in block.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with pytest.raises(UserError, match="is not finite"):
        boltz.load_layer(block, layer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
