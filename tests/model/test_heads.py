"""Sequence heads."""

from pathlib import Path

import pytest
import torch

from app.errors import UserError
from app.model.heads import HeadKind, build_head
from tests.blocks.test_every_block import state
from tests.factories import perturb, tiny_model

SIZES = {"c_s": 16, "c_z": 8}
ROOT = Path(__file__).resolve().parents[2]


def test_the_mlp_head_is_three_layers_with_relu():
    head = perturb(build_head({"kind": "mlp"}, SIZES, 21))
    first, second, last = head.layers[0], head.layers[2], head.layers[4]
    node = state().node
    assert torch.equal(head(state()), last(second(first(node).relu()).relu()))


@pytest.mark.parametrize("kind", [kind.value for kind in HeadKind])
def test_every_head_has_a_file(kind):
    assert (ROOT / f"app/model/heads/{kind}.py").is_file()


def test_unknown_heads_and_settings_are_refused():
    for config in ({"kind": "nope"}, {}):
        with pytest.raises(UserError, match=r"model\.head\.kind.*choose one of mlp"):
            tiny_model(head=config)
    with pytest.raises(UserError, match=r"model\.head.*depth"):
        tiny_model(head={"kind": "mlp", "depth": 3})
