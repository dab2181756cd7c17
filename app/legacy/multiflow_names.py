"""Parameter names: Multiflow's and ours, one to one.

Multiflow's trunk is a dictionary of modules numbered by block (`trunk.ipa_3.linear_q.weight`); ours is one stage of IPA
blocks (`trunk.stages.0.3.attention.q.weight`).
"""

import re

_EMBEDDINGS = {
    "node_feature_net.aatype_embedding.": "node_embed.token.",
    "node_feature_net.linear.": "node_embed.project.",
    "edge_feature_net.linear_s_p.": "edge_embed.node.",
    "edge_feature_net.linear_relpos.": "edge_embed.relative.",
    "edge_feature_net.edge_embedder.": "edge_embed.project.",
    "aatype_pred_net.": "head.layers.",
}

_BLOCK = {
    "ipa_{i}.head_weights": "attention.gamma",
    "ipa_{i}.linear_q.": "attention.q.",
    "ipa_{i}.linear_kv.": "attention.kv.",
    "ipa_{i}.linear_q_points.": "attention.q_points.",
    "ipa_{i}.linear_kv_points.": "attention.kv_points.",
    "ipa_{i}.linear_b.": "attention.pair_bias.",
    "ipa_{i}.down_z.": "attention.pair_down.",
    "ipa_{i}.linear_out.": "attention.out.",
    "ipa_ln_{i}.": "norm.",
    "post_tfmr_{i}.": "after_transformer.",
    "node_transition_{i}.linear_1.": "node_transition.first.",
    "node_transition_{i}.linear_2.": "node_transition.second.",
    "node_transition_{i}.linear_3.": "node_transition.last.",
    "node_transition_{i}.ln.": "node_transition.norm.",
    "bb_update_{i}.linear.": "backbone_update.linear.",
    "edge_transition_{i}.initial_embed.": "edge_transition.narrow.",
    "edge_transition_{i}.trunk.0.": "edge_transition.first.",
    "edge_transition_{i}.trunk.2.": "edge_transition.second.",
    "edge_transition_{i}.final_layer.": "edge_transition.last.",
    "edge_transition_{i}.layer_norm.": "edge_transition.norm.",
}

_LAYER = {
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj.": "out.",
    "linear1.": "hidden.",
    "linear2.": "contract.",
    "norm1.": "norm_attention.",
    "norm2.": "norm_feed_forward.",
}

TORSION = re.compile(r"(^|\.)(torsion|angle_resnet|aatype_pred_torsion)|torsions?_", re.IGNORECASE)
"""Left over in old files from a torsion head that Multiflow no longer has."""


def _swap(name: str, table: dict[str, str]) -> str | None:
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return None


def ours(name: str) -> str | None:
    """Our name of a Multiflow parameter (without the prefix `model.`); None where there is none."""
    if (new := _swap(name, _EMBEDDINGS)) is not None:
        return new
    if match := re.fullmatch(r"trunk\.seq_tfmr_(\d+)\.layers\.(\d+)\.(.+)", name):
        block, layer, rest = match.groups()
        rest = _swap(rest, _LAYER)
        return rest and f"trunk.stages.0.{block}.transformer.layers.{layer}.{rest}"
    if match := re.fullmatch(r"trunk\.([a-z_]+?)_(\d+)\.(.+)", name):
        kind, block, rest = match.groups()
        new = _swap(f"{kind}_{{i}}.{rest}", _BLOCK)
        return new and f"trunk.stages.0.{block}.{new}"
    return None


def theirs(name: str) -> str | None:
    """Multiflow's name of one of our parameters, the inverse of `ours`; None where Multiflow has no such thing."""
    if (old := _swap(name, _inverse(_EMBEDDINGS))) is not None:
        return old
    match = re.fullmatch(r"trunk\.stages\.0\.(\d+)\.(.+)", name)
    if match is None:
        return None
    block, rest = match.groups()
    if layer := re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", rest):
        old = _swap(layer[2], _inverse(_LAYER))
        return old and f"trunk.seq_tfmr_{block}.layers.{layer[1]}.{old}"
    old = _swap(rest, _inverse(_BLOCK))
    return old and "trunk." + old.replace("{i}", block)


def _inverse(table: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}


_ORDER_IN_BLOCK = ("ipa", "ipa_ln", "seq_tfmr", "post_tfmr", "node_transition", "bb_update", "edge_transition")
_ORDER = ("node_feature_net", "edge_feature_net", "aatype_pred_net", "trunk")


def legacy_order(names: list[str]) -> list[str]:
    """Multiflow names sorted as its `parameters()` gives them: embeddings, sequence head, the trunk block by block.

    Within a module the order given is kept.
    """

    def key(name: str) -> tuple[int, int, int]:
        match = re.match(r"trunk\.([a-z_]+?)_(\d+)\.", name)
        inside = (int(match[2]), _ORDER_IN_BLOCK.index(match[1])) if match else (0, 0)
        return (_ORDER.index(name.split(".")[0]), *inside)

    return sorted(names, key=key)
