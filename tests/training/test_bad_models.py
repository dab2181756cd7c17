"""A model that cannot be is told in one line, before anything is written or trained."""

import pytest

from app.errors import UserError
from app.training.run import train

PAIR_STAGE = "{block: pairformer, depth: 1}"
IPA = "{block: ipa, depth: 1}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.trunk.stages=[{block: nope}]"], "model.trunk.stages.0: 'nope' is not a block type; choose one of"),
        (["model/trunk=nope"], "model/trunk=nope: no such option; .*is one of: .*pairformer"),
        (["model/head=nope"], "model/head=nope: no such option"),
        (["recipe=pairformer_heavy", "model.c_s=100"], r"model\.trunk\.stages\.0: c_s=100.*num_heads"),
        (["model.trunk.stages=[{block: pair_bias, depth: 2}]"], "model.trunk.stages: no stage updates the backbone"),
        ([f"model.trunk.stages=[{IPA}, {{block: pairformer_noseq}}]"], r"model\.trunk\.stages\.1: nothing reads"),
        (["recipe=linear_memory", "model/trunk=pairformer"], r"model\.trunk\.stages\.0: pairformer needs the edge"),
        (["recipe=linear_memory", "model/head=pair_bias"], r"model\.head\.stages\.0: pair_bias needs the edge"),
        (["recipe=linear_memory", "model/esm=node_and_edge"], r"model\.esm\..*model\.c_z=null"),
        (["recipe=flash_esm_nodeonly", "model.edge_embed.num_bins=9"], r"model\.edge_embed\.num_bins has no effect"),
        (["recipe=flash_esm_nodeonly", "model.c_z=64"], r"model\.c_z has no effect: no block of this model reads"),
        (["recipe=tiny", "model/head=none", "loss.token_weight=2"], r"loss\.token_weight has no effect"),
        (["model/esm=node", "model.esm.name=nowhere/esm"], r"model\.esm\.name.*nowhere/esm"),
        (
            ["model/esm=node_and_edge", "model.esm.backend=faplm"],
            r"model\.esm: .*maps.*set model\.esm\.backend=transformers",
        ),
        (
            ["model.trunk.stages.0.block=pairformer"],
            r"give the whole list, as in .model\.trunk\.stages=\[{block",
        ),
        (["model.trunk.stages=[{repeat: 9999, stages: [{block: ipa}]}]"], r"trunk\.stages: 9999 blocks are more than"),
        (["model.trunk.stages=[{block: ipa, repeat: 2}]"], r"trunk\.stages\.0: block, .* unknown beside repeat"),
        (["model.trunk.num_recycles=1000000"], r"model\.trunk\.num_recycles=1000000: give 0 to 100"),
        (
            [f"model.trunk.stages={'[{repeat: 1, stages: ' * 25}[{IPA}]{'}]' * 25}"],
            r"model\.trunk\.stages: nested in more",
        ),
        ([f"model.trunk.stages={'[{repeat: 1, stages: ' * 90}[{IPA}]{'}]' * 90}"], r"model\.trunk\.stages"),
        (["model.trunk.num_recycles=-1"], r"model\.trunk\.num_recycles"),
        (["model.trunk.stages.0.depth=0"], r"model\.trunk\.stages\.0\.depth=0"),
        (["model.trunk.stages.0.dropout={train: 0.1}"], r"model\.trunk\.stages\.0\.dropout"),
        (["weights_boltz=nowhere.ckpt", "recipe=pairformer_heavy"], "nowhere.ckpt: no such checkpoint"),
        (["resume=a.ckpt", "weights_boltz=b.ckpt"], "resume= and weights_boltz=: give one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_is_one_line_that_names_the_setting(arguments, says, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=says) as caught:
        train([*arguments, "trainer=cpu", "trainer.max_steps=1", f"out={tmp_path / 'out'}"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
