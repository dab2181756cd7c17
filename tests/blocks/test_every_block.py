"""What holds for every block type: each is found by its line in `BlockType`, so a new one is tested without more."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from app.blocks import Block, BlockSettings, BlockType, block_class, block_settings, build_block
from app.errors import UserError
from app.types import Frames, TrunkState
from tests.factories import generator, perturb, random_rotations

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [kind.value for kind in BlockType]
SIZES = {"c_s": 16, "c_z": 8}
N, MISSING, GIVEN = 7, 2, 2

every_block = pytest.mark.parametrize("name", BLOCKS)


def variants() -> list:
    """Every block as it comes, and with each of its switches the other way."""
    found = []
    for name in BLOCKS:
        switches = {f: info.default for f, info in block_class(name).Settings.model_fields.items()}
        switched = [{f: not default} for f, default in switches.items() if isinstance(default, bool)]
        for changes in [{}, *switched]:
            label = "-".join([name, *(f"{key}={value}" for key, value in changes.items())])
            found.append(pytest.param((name, changes), id=label))
    return found


every_variant = pytest.mark.parametrize("variant", variants())


def state(seed: int = 0, extra: int = 0) -> TrunkState:
    """Two examples: the second has absent residues at its end and given ones at its start. extra: more absent ones."""
    source = generator(seed)
    mask, moving = torch.ones(2, N), torch.ones(2, N)
    mask[1, N - MISSING :] = 0
    moving[1, :GIVEN] = 0
    node, edge = torch.randn(2, N, 16, generator=source), torch.randn(2, N, N, 8, generator=source)
    rotmats, trans = random_rotations(2, N, seed=seed), torch.randn(2, N, 3, generator=source)
    t = torch.rand(2, 3, generator=source)
    if extra:
        pad = torch.nn.functional.pad
        mask, moving = (pad(x, (0, extra)) for x in (mask, moving))
        node, edge = pad(node, (0, 0, 0, extra)), pad(edge, (0, 0, 0, extra, 0, extra))
        rotmats = torch.cat([rotmats, random_rotations(2, extra, seed=1)], dim=1)
        trans = torch.cat([trans, 5 * torch.randn(2, extra, 3, generator=source)], dim=1)
    edge_mask = mask[:, :, None] * mask[:, None]
    return TrunkState(
        node=node * mask[..., None],
        edge=edge * edge_mask[..., None],
        frames=Frames(rotmats, trans),
        node_mask=mask,
        edge_mask=edge_mask,
        t=t,
        frame_mask=mask * moving,
    )


def block(variant: str | tuple[str, dict]) -> Block:
    name, changes = (variant, {}) if isinstance(variant, str) else variant
    return perturb(build_block(name, **SIZES, **changes), scale=0.2).eval()


def parts(out: TrunkState) -> dict[str, torch.Tensor]:
    found = {"node": out.node, "edge": out.edge, "rotmats": out.frames.rotmats, "trans": out.frames.trans}
    return {name: value for name, value in found.items() if value is not None}


def written(module: Block, out: TrunkState) -> dict[str, torch.Tensor]:
    """The parts of its output that a block says it writes."""
    kept = set(module.settings.writes) | ({"rotmats", "trans"} if module.updates_backbone else set())
    return {name: value for name, value in parts(out).items() if name in kept}


def ablated(given: TrunkState, part: str) -> TrunkState:
    """The state with other values in one part, on present residues."""
    source = generator(77)
    if part == "frames":
        turns, shift = random_rotations(2, N, seed=78), torch.randn(2, N, 3, generator=source)
        return given.replace(frames=Frames(turns @ given.frames.rotmats, given.frames.trans + shift))
    value = getattr(given, part)
    if part == "t":
        return given.replace(t=torch.rand(value.shape, generator=source))
    mask = given.node_mask if part == "node" else given.edge_mask
    return given.replace(**{part: (value + torch.randn(value.shape, generator=source)) * mask[..., None]})


@every_block
def test_the_file_is_named_after_the_block_and_the_recipe_has_its_defaults(name):
    defaults = block_class(name).Settings().model_dump(mode="json", exclude=set(BlockSettings.model_fields))
    assert yaml.safe_load((ROOT / f"recipes/block/{name}.yaml").read_text()) == defaults
    assert list(yaml.safe_load((ROOT / f"recipes/block/{name}.yaml").read_text())) == list(defaults)


def test_every_file_of_a_block_is_in_the_list():
    def is_block(file: Path) -> bool:
        return "class Block(" in file.read_text() and file.stem != "base"

    assert sorted(file.stem for file in (ROOT / "app/blocks").glob("*.py") if is_block(file)) == sorted(BLOCKS)
    assert sorted(file.stem for file in (ROOT / "recipes/block").glob("*.yaml")) == sorted(BLOCKS)


@every_variant
def test_what_is_not_the_blocks_to_change_passes_through(variant):
    before, after = state(), block(variant)(state())
    for field in ("node_mask", "edge_mask", "t", "frame_mask"):
        assert torch.equal(getattr(after, field), getattr(before, field))
    for key, value in parts(after).items():
        assert value.shape == parts(before)[key].shape
        assert value.isfinite().all()


@every_variant
def test_absent_rows_stay_zero(variant):
    given, after = state(), block(variant)(state())
    assert not after.node[given.node_mask == 0].any()
    assert not after.edge[given.edge_mask == 0].any()


@every_variant
def test_the_state_given_is_not_changed_in_place(variant):
    given = state()
    block(variant)(given)
    for key, value in parts(state()).items():
        assert torch.equal(parts(given)[key], value)


@every_variant
def test_it_writes_what_it_says_and_nothing_else(variant):
    module = block(variant)
    before, after = parts(state()), parts(module(state()))
    told = written(module, state())
    for key, value in before.items():
        assert torch.allclose(after[key], value) is (key not in told), key


@every_variant
@pytest.mark.parametrize("part", ["node", "edge", "frames", "t"])
def test_it_reads_what_it_says_and_nothing_else(variant, part):
    """Each input that a block claims to use changes its output; others reach it through no back door."""
    module, given = block(variant), state()
    before, after = written(module, module(given)), written(module, module(ablated(given, part)))
    if part in module.settings.reads:
        real = given.node_mask.bool()
        both = {key: real[:, :, None] & real[:, None] if key == "edge" else real for key in before}
        assert any(not torch.allclose(after[key][both[key]], before[key][both[key]], atol=1e-4) for key in before)
    else:
        assert all(torch.equal(after[key], value) for key, value in before.items())


@every_variant
def test_what_it_writes_it_reads(variant):
    """Blocks enrich: they add to what is there. A stack's plan counts on it."""
    settings = block(variant).settings
    assert settings.writes <= settings.reads


@every_variant
def test_a_block_without_use_for_edges_runs_without_any(variant):
    module, given = block(variant), state()
    if "edge" in module.settings.reads:
        return
    found = module(given.replace(edge=None, edge_mask=None))
    assert found.edge is None
    for key, value in written(module, found).items():
        assert torch.equal(value, parts(module(given))[key])


@every_variant
@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing(variant, extra):
    module, real = block(variant), state().node_mask.bool()
    short, long = parts(module(state())), parts(module(state(extra=extra)))
    both = real[:, :, None] & real[:, None]
    for key, value in short.items():
        where = both if key == "edge" else real
        cut = long[key][:, :N, :N] if key == "edge" else long[key][:, :N]
        torch.testing.assert_close(cut[where], value[where], atol=1e-5, rtol=1e-5)


@every_variant
def test_gradients_do_not_see_padding(variant):
    module = block(variant)
    gradients = []
    for extra in (0, 5):
        module.zero_grad()
        out, real = module(state(extra=extra)), state().node_mask.bool()
        both = real[:, :, None] & real[:, None]
        cut = {k: v[:, :N, :N][both] if k == "edge" else v[:, :N][real] for k, v in written(module, out).items()}
        sum(value.square().sum() for value in cut.values()).backward()
        gradients.append({key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, atol=1e-4, rtol=1e-3)


@every_variant
def test_batch_mates_change_nothing(variant):
    module, both = block(variant), state()
    alone = dataclasses.replace(
        both,
        **{f: getattr(both, f)[:1] for f in ("node", "edge", "node_mask", "edge_mask", "t", "frame_mask")},
        frames=Frames(both.frames.rotmats[:1], both.frames.trans[:1]),
    )
    for key, value in parts(module(alone)).items():
        torch.testing.assert_close(parts(module(both))[key][:1], value, atol=1e-6, rtol=1e-5)


@every_variant
def test_residues_in_another_order_come_out_in_that_order(variant):
    """Blocks know no positions: only the representations and the frames tell residues apart."""
    module, given, order = block(variant), state(), torch.randperm(N, generator=generator(4))
    shuffled = given.replace(
        node=given.node[:, order],
        edge=given.edge[:, order][:, :, order],
        frames=Frames(given.frames.rotmats[:, order], given.frames.trans[:, order]),
        node_mask=given.node_mask[:, order],
        edge_mask=given.edge_mask[:, order][:, :, order],
        frame_mask=given.frame_mask[:, order],
    )
    before, after = parts(module(given)), parts(module(shuffled))
    for key, value in before.items():
        expected = value[:, order][:, :, order] if key == "edge" else value[:, order]
        torch.testing.assert_close(after[key], expected, atol=1e-5, rtol=1e-4)


@every_variant
def test_it_is_equivariant_if_it_moves_frames_and_invariant_if_not(variant):
    module, given = block(variant), state()
    turn, shift = random_rotations(2, seed=5)[:, None], torch.tensor([[[1.0, -2.0, 3.0]], [[0.5, 4.0, -1.0]]])
    moved = Frames(turn @ given.frames.rotmats, (turn @ given.frames.trans[..., None]).squeeze(-1) + shift)
    before, after = module(given), module(given.replace(frames=moved))
    for key in ("node", "edge"):
        torch.testing.assert_close(getattr(after, key), getattr(before, key), atol=1e-4, rtol=1e-4)
    expected = (turn @ before.frames.trans[..., None]).squeeze(-1) + shift
    torch.testing.assert_close(after.frames.rotmats, turn @ before.frames.rotmats, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.frames.trans, expected, atol=1e-4, rtol=1e-4)


@every_variant
def test_only_diffused_residues_move_and_only_if_the_block_says_that_it_moves_frames(variant):
    module, given = block(variant), state()
    after = module(given).frames
    still = given.frame_mask == 0
    assert torch.equal(after.rotmats[still], given.frames.rotmats[still])
    assert torch.equal(after.trans[still], given.frames.trans[still])
    moved = (after.trans != given.frames.trans).any(-1)
    assert torch.equal(moved, ~still if module.updates_backbone else torch.zeros_like(still))


@every_variant
def test_frames_stay_rotations_in_float32_under_autocast(variant):
    module, given = block(variant), state()
    with torch.autocast("cpu", torch.bfloat16):
        after = module(given)
    assert after.frames.rotmats.dtype == after.frames.trans.dtype == torch.float32
    eye = torch.eye(3).expand(2, N, 3, 3)
    torch.testing.assert_close(after.frames.rotmats.mT @ after.frames.rotmats, eye, atol=1e-5, rtol=0)


@every_variant
def test_every_parameter_is_trained(variant):
    module = block(variant).train()
    out = module(state())
    sum(value.square().sum() + value.sum() for value in written(module, out).values()).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_variant
def test_training_and_inference_differ_by_dropout_alone(variant):
    """With every rate at 0 a block in training is the block in inference."""
    name, changes = variant
    fields = block_class(name).Settings.model_fields
    still = {field: 0.0 for field in fields if field.endswith("dropout")}
    module = block((name, changes | still))
    for key, value in parts(module(state())).items():
        assert torch.equal(parts(module.train()(state()))[key], value)
    if still:
        lively = block((name, changes | dict.fromkeys(still, 0.5))).train()
        assert any(not torch.equal(parts(lively(state()))[key], parts(lively(state()))[key]) for key in parts(state()))


@every_block
def test_stages_have_their_depth(name):
    settings = block_settings(name, SIZES)
    assert [len(settings.layers(depth)) for depth in (1, 3)] == [1, 3]


@every_variant
@pytest.mark.parametrize("needed", [("node",), ("node", "edge"), ("node", "frames")], ids="-".join)
def test_no_part_is_made_in_vain(variant, needed):
    """Where only some parts are read after a block, it keeps what affects those: all its parameters still do."""
    settings, needed = block(variant).settings, set(needed)
    kept = settings.for_readers(needed)
    if kept is None:
        assert not needed & settings.writes
        return
    module = perturb(block_class(variant[0])(kept), scale=0.2)
    out = module(state())
    read = {"node": [out.node], "edge": [out.edge], "frames": [out.frames.rotmats, out.frames.trans]}
    values = [value for part in needed & kept.writes for value in read[part]]
    sum(value.square().sum() + value.sum() for value in values).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_unknown_blocks_and_settings_are_named():
    with pytest.raises(UserError, match="'nope' is not a block type; choose one of ipa"):
        build_block("nope")
    with pytest.raises(UserError, match=r"block\.num_head is unknown: did you mean num_heads"):
        build_block("ipa", num_head=3)
    with pytest.raises(UserError, match="c_s=15"):
        build_block("ipa", c_s=15)
    assert isinstance(build_block(BlockType.IPA, **SIZES), Block)
