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


def state(seed: int = 0, extra: int = 0) -> TrunkState:
    """Two examples: the second has absent residues at its end and given ones at its start. extra: more absent ones."""
    source = generator(seed)
    mask, moving = torch.ones(2, N), torch.ones(2, N)
    mask[1, N - MISSING :] = 0
    moving[1, :GIVEN] = 0
    node, edge = torch.randn(2, N, 16, generator=source), torch.randn(2, N, N, 8, generator=source)
    rotmats, trans = random_rotations(2, N, seed=seed), torch.randn(2, N, 3, generator=source)
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
        t=torch.rand(2, 3, generator=source),
        frame_mask=mask * moving,
    )


def block(name: str) -> Block:
    return perturb(build_block(name, **SIZES), scale=0.2).eval()


def parts(out: TrunkState) -> dict[str, torch.Tensor]:
    return {"node": out.node, "edge": out.edge, "rotmats": out.frames.rotmats, "trans": out.frames.trans}


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


@every_block
def test_what_is_not_the_blocks_to_change_passes_through(name):
    before, after = state(), block(name)(state())
    for field in ("node_mask", "edge_mask", "t", "frame_mask"):
        assert torch.equal(getattr(after, field), getattr(before, field))
    for key, value in parts(after).items():
        assert value.shape == parts(before)[key].shape
        assert value.isfinite().all()


@every_block
def test_the_state_given_is_not_changed_in_place(name):
    given = state()
    block(name)(given)
    for key, value in parts(state()).items():
        assert torch.equal(parts(given)[key], value)


@every_block
def test_it_does_something(name):
    before, after = parts(state()), parts(block(name)(state()))
    assert any(not torch.allclose(after[key], before[key]) for key in before)


@every_block
@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing(name, extra):
    module, real = block(name), state().node_mask.bool()
    short, long = parts(module(state())), parts(module(state(extra=extra)))
    both = real[:, :, None] & real[:, None]
    for key, value in short.items():
        where = both if key == "edge" else real
        cut = long[key][:, :N, :N] if key == "edge" else long[key][:, :N]
        torch.testing.assert_close(cut[where], value[where], atol=1e-5, rtol=1e-5)


@every_block
def test_gradients_do_not_see_padding(name):
    module = block(name)
    gradients = []
    for extra in (0, 5):
        module.zero_grad()
        out, real = module(state(extra=extra)), state().node_mask.bool()
        loss = sum(value[:, :N][real].square().sum() for key, value in parts(out).items() if key != "edge")
        loss = loss + out.edge[:, :N, :N][real[:, :, None] & real[:, None]].square().sum()
        loss.backward()
        gradients.append({key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, atol=1e-4, rtol=1e-3)


@every_block
def test_batch_mates_change_nothing(name):
    module, both = block(name), state()
    alone = dataclasses.replace(
        both,
        **{f: getattr(both, f)[:1] for f in ("node", "edge", "node_mask", "edge_mask", "t", "frame_mask")},
        frames=Frames(both.frames.rotmats[:1], both.frames.trans[:1]),
    )
    for key, value in parts(module(alone)).items():
        torch.testing.assert_close(parts(module(both))[key][:1], value, atol=1e-6, rtol=1e-5)


@every_block
def test_it_is_equivariant_if_it_moves_frames_and_invariant_if_not(name):
    module, given = block(name), state()
    turn, shift = random_rotations(2, seed=5)[:, None], torch.tensor([[[1.0, -2.0, 3.0]], [[0.5, 4.0, -1.0]]])
    moved = Frames(turn @ given.frames.rotmats, (turn @ given.frames.trans[..., None]).squeeze(-1) + shift)
    before, after = module(given), module(given.replace(frames=moved))
    for key in ("node", "edge"):
        torch.testing.assert_close(getattr(after, key), getattr(before, key), atol=1e-4, rtol=1e-4)
    expected = (turn @ before.frames.trans[..., None]).squeeze(-1) + shift
    torch.testing.assert_close(after.frames.rotmats, turn @ before.frames.rotmats, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.frames.trans, expected, atol=1e-4, rtol=1e-4)


@every_block
def test_only_diffused_residues_move_and_only_if_the_block_says_that_it_moves_frames(name):
    module, given = block(name), state()
    after = module(given).frames
    still = given.frame_mask == 0
    assert torch.equal(after.rotmats[still], given.frames.rotmats[still])
    assert torch.equal(after.trans[still], given.frames.trans[still])
    moved = (after.trans != given.frames.trans).any(-1)
    assert torch.equal(moved, ~still if module.updates_backbone else torch.zeros_like(still))


@every_block
def test_frames_stay_rotations_in_float32_under_autocast(name):
    module, given = block(name), state()
    with torch.autocast("cpu", torch.bfloat16):
        after = module(given)
    assert after.frames.rotmats.dtype == after.frames.trans.dtype == torch.float32
    eye = torch.eye(3).expand(2, N, 3, 3)
    torch.testing.assert_close(after.frames.rotmats.mT @ after.frames.rotmats, eye, atol=1e-5, rtol=0)


@every_block
def test_every_parameter_is_trained(name):
    module = block(name).train()
    out = module(state())
    sum(value.square().sum() + value.sum() for value in parts(out).values()).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@every_block
def test_stages_have_their_depth(name):
    settings = block_settings(name, SIZES)
    assert [len(block_class(name).stage(settings, depth)) for depth in (1, 3)] == [1, 3]


def test_unknown_blocks_and_settings_are_named():
    with pytest.raises(UserError, match="'nope' is not a block type; choose one of ipa"):
        build_block("nope")
    with pytest.raises(UserError, match=r"block\.ipa.*num_head"):
        build_block("ipa", num_head=3)
    with pytest.raises(UserError, match="c_s=15"):
        build_block("ipa", c_s=15)
    assert isinstance(build_block(BlockType.IPA, **SIZES), Block)
