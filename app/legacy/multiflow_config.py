"""Multiflow's config and our recipe, in both directions: one table of keys, read from left to right or back."""

import itertools
import re
from typing import Any

from torch import Tensor

from app.blocks.ipa import Settings as IpaSettings
from app.config.validate import parse
from app.errors import UserError
from app.flow.settings import FlowSettings
from app.model.edge_embed import EdgeEmbedSettings
from app.sampling.settings import SAMPLERS

_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_LARGEST = 100_000
"""Values in a config with its references followed. Published ones have hundreds; a few lines could mean billions."""


def resolve(config: dict) -> dict:
    """References inside the file (`${model.node_embed_size}`) replaced by what they name; all other `${...}` stay text.

    No resolver is ever called, so `${oc.env:HOME}` and `${now:%Y}` are just strings. Raises UserError for references
    that go round in a circle or multiply without end.
    """
    number = itertools.count()

    def look_up(path: str, seen: tuple[str, ...]) -> Any:
        if path in seen:
            raise UserError(f"config: the references {' -> '.join((*seen, path))} go round in a circle")
        value: Any = config
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return "${" + path + "}"
            value = value[key]
        return settle(value, (*seen, path))

    def settle(value: Any, seen: tuple[str, ...] = ()) -> Any:
        if next(number) > _LARGEST:
            raise RecursionError
        if isinstance(value, dict):
            return {key: settle(item, seen) for key, item in value.items()}
        if isinstance(value, list):
            return [settle(item, seen) for item in value]
        if not isinstance(value, str):
            return value
        if whole := _REFERENCE.fullmatch(value):
            return look_up(whole[1], seen)
        return _REFERENCE.sub(lambda match: str(look_up(match[1], seen)), value)

    try:
        return settle(config)
    except RecursionError:
        raise UserError("config: its references lead to more than anyone can follow") from None


_SAME = {
    "experiment.seed": "seed",
    "experiment.optimizer.lr": "optimizer.lr",
    "interpolant.min_t": "flow.min_t",
    "interpolant.codesign_separate_t": "flow.separate_times",
    "interpolant.codesign_forward_fold_prop": "flow.forward_folding_share",
    "interpolant.codesign_inverse_fold_prop": "flow.inverse_folding_share",
    "interpolant.rots.corrupt": "flow.corrupt_rotations",
    "interpolant.rots.exp_rate": "sampler.rotation_rate",
    "interpolant.trans.corrupt": "flow.corrupt_translations",
    "interpolant.trans.batch_ot": "flow.batch_transport",
    "interpolant.aatypes.corrupt": "flow.corrupt_tokens",
    "interpolant.aatypes.temp": "sampler.token_temperature",
    "interpolant.aatypes.noise": "sampler.token_noise",
    "interpolant.aatypes.train_extra_mask": "flow.extra_mask_share",
    "interpolant.aatypes.interpolant_type": "flow.tokens",
    "experiment.training.mask_plddt": "loss.use_plddt_mask",
    "experiment.training.bb_atom_scale": "loss.auxiliary_scale",
    "experiment.training.trans_scale": "loss.translation_scale",
    "experiment.training.aatypes_loss_weight": "loss.token_weight",
    "experiment.training.aatypes_label_smoothing": "loss.token_label_smoothing",
    "experiment.training.aatypes_loss_use_likelihood_weighting": "loss.token_likelihood_weighting",
    "experiment.training.translation_loss_weight": "loss.translation_weight",
    "experiment.training.t_normalize_clip": "loss.max_t",
    "experiment.training.rotation_loss_weights": "loss.rotation_weight",
    "experiment.training.aux_loss_weight": "loss.auxiliary_weight",
    "experiment.training.aux_loss_use_bb_loss": "loss.auxiliary_atoms",
    "experiment.training.aux_loss_use_pair_loss": "loss.auxiliary_distances",
    "experiment.training.aux_loss_t_pass": "loss.auxiliary_min_t",
    "model.node_embed_size": "model.c_s",
    "model.edge_embed_size": "model.c_z",
    "model.aatype_pred_num_tokens": "model.num_tokens",
    "model.transformer_dropout": "stage.transformer_dropout",
    "model.node_features.c_s": "model.c_s",
    "model.node_features.c_pos_emb": "model.node_embed.c_position",
    "model.node_features.c_timestep_emb": "model.node_embed.c_time",
    "model.node_features.embed_chain": "model.node_embed.embed_chain",
    "model.node_features.embed_aatype": "model.node_embed.embed_tokens",
    "model.node_features.use_mlp": "model.node_embed.mlp",
    "model.node_features.aatype_pred_num_tokens": "model.num_tokens",
    "model.edge_features.c_s": "model.c_s",
    "model.edge_features.c_p": "model.c_z",
    "model.edge_features.feat_dim": "model.edge_embed.feature_width",
    "model.edge_features.num_bins": "model.edge_embed.num_bins",
    "model.edge_features.self_condition": "model.edge_embed.self_condition",
    "model.edge_features.embed_chain": "model.edge_embed.embed_chain",
    "model.edge_features.embed_diffuse_mask": "model.edge_embed.embed_diffuse_mask",
    "model.ipa.c_s": "model.c_s",
    "model.ipa.c_z": "model.c_z",
    "model.ipa.c_hidden": "stage.head_width",
    "model.ipa.no_heads": "stage.num_heads",
    "model.ipa.no_qk_points": "stage.num_qk_points",
    "model.ipa.no_v_points": "stage.num_v_points",
    "model.ipa.seq_tfmr_num_heads": "stage.transformer_heads",
    "model.ipa.seq_tfmr_num_layers": "stage.transformer_layers",
    "model.ipa.num_blocks": "stage.depth",
    "model.ipa.dropout": "stage.dropout",
    "experiment.trainer.max_epochs": "trainer.max_epochs",
    "experiment.trainer.accumulate_grad_batches": "trainer.accumulate",
    "data.sampler.max_batch_size": "data.loader.max_batch_size",
    "data.sampler.max_num_res_squared": "data.loader.max_residues_squared",
}
"""Multiflow's key -> ours, for values that are the same; `stage` is the one stage of IPA blocks."""

_CHOICES = {
    "interpolant.rots.sample_schedule": ("sampler.rotation_schedule", {"exp": "exponential", "linear": "linear"}),
    "interpolant.aatypes.do_purity": ("sampler.token_step", {True: "purity", False: "plain"}),
    "interpolant.self_condition": ("flow.self_condition_share", {True: 0.5, False: 0.0}),
    "experiment.training.aatypes_loss_mean_or_sum": ("loss.token_sum", {"mean": False, "sum": True}),
}
"""The same for values that have other names here. A value that is not listed is an error."""

_FIXED = {
    "interpolant.provide_kappa": False,
    "interpolant.hierarchical_t": False,
    "interpolant.rots.train_schedule": "linear",
    "interpolant.trans.train_schedule": "linear",
    "interpolant.trans.sample_schedule": "linear",
    "interpolant.trans.potential": None,
    "interpolant.aatypes.schedule": "linear",
    "interpolant.sampling.do_sde": False,
    "interpolant.twisting.use": False,
    "model.symmetric": False,
    "model.aatype_pred": True,
}
"""Settings with one supported value: another one is an error, since it changes what is computed."""

_UNREAD = {
    "data.dataset": "pdb",
    "data.task": "hallucination",
    "interpolant.separate_t": False,
    "interpolant.trans.sample_temp": 1.0,
    "interpolant.trans.vpsde_bmin": 0.1,
    "interpolant.trans.vpsde_bmax": 20.0,
    "interpolant.trans.potential_t_scaling": False,
    "interpolant.trans.rog": {"weight": 10.0, "cutoff": 5.0},
    "interpolant.aatypes.schedule_exp_rate": 10,
    "interpolant.sampling.num_timesteps": 100,
    "interpolant.twisting.num_rots": 1,
    "model.node_features.max_num_res": 2000,
    "model.node_features.timestep_int": 1000,
    "model.edge_features.single_bias_transition_n": 2,
    "model.edge_features.relpos_k": 64,
}
"""Settings that Multiflow's code wants to find but that mean nothing here: written on export, ignored on loading."""

_ABSENT = object()


def _get(tree: dict, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return _ABSENT
        tree = tree[part]
    return tree


def _set(tree: dict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


def to_recipe(config: dict, tensors: dict[str, Tensor]) -> dict:
    """Our recipe, as a plain dict, of a Multiflow config (resolved) and its state dict (names without `model.`).

    Dimensions are read from the tensors' shapes; the config gives what shapes cannot, and our defaults, which are
    Multiflow's, what neither does. Raises UserError for settings that change what is computed in ways unknown here.
    """
    recipe: dict = {
        "name": "multiflow_legacy",
        "flow": {"invert_transport": True, "half_turn": "positive"},
        "sampler": SAMPLERS["multiflow_legacy"].model_dump(mode="json"),
        "data": {"kind": "multiflow"},
        "stage": {"block": "ipa"},
    }
    for key, supported in _FIXED.items():
        if (value := _get(config, key)) not in (supported, _ABSENT):
            raise UserError(f"config {key}={value!r} is not supported; known: {supported!r}")
    for key, target in _SAME.items():
        if (value := _get(config, key)) is not _ABSENT:
            _set(recipe, target, value)
    for key, (target, names) in _CHOICES.items():
        if (value := _get(config, key)) is _ABSENT:
            continue
        if value not in list(names):
            raise UserError(f"config {key}={value!r} is not supported; known: {', '.join(map(repr, names))}")
        _set(recipe, target, names[value])
    flow = parse(FlowSettings, recipe["flow"], "flow")
    recipe["sampler"] |= {"tokens": flow.tokens, "min_t": flow.min_t, "fixed_t": 1 - flow.min_t}
    for key, value in _dimensions(tensors, recipe).items():
        _set(recipe, key, value)
    recipe["model"] |= {"trunk": {"stages": [recipe.pop("stage")]}, "head": {"kind": "mlp"}}
    return recipe


def _dimensions(tensors: dict[str, Tensor], recipe: dict) -> dict[str, int]:
    """What the shapes tell, by our key."""

    def shape(name: str) -> tuple[int, int]:
        """(outputs, inputs) of a linear layer."""
        if name not in tensors:
            raise UserError(f"the parameter model.{name} is missing, so this is not a whole Multiflow model")
        if tensors[name].dim() != 2 or not tensors[name].numel():
            raise UserError(f"the parameter model.{name} has shape {list(tensors[name].shape)}: wanted a matrix")
        return tuple(tensors[name].shape)

    def count(pattern: str) -> int:
        return 1 + max((int(match[1]) for name in tensors if (match := re.match(pattern, name))), default=-1)

    num_heads, c_z = shape("trunk.ipa_0.linear_b.weight")
    qk_points = shape("trunk.ipa_0.linear_q_points.weight")[0] // (3 * num_heads)
    all_points = shape("trunk.ipa_0.linear_kv_points.weight")[0] // (3 * num_heads)
    feature_width = shape("edge_feature_net.linear_s_p.weight")[0]
    embedded = recipe.get("model", {}).get("edge_embed", {})
    embedded = {
        key: embedded[key] for key in ("self_condition", "embed_chain", "embed_diffuse_mask") if key in embedded
    }
    sees = parse(EdgeEmbedSettings, embedded, "model.edge_embed")
    bins = shape("edge_feature_net.edge_embedder.0.weight")[1] - 3 * feature_width
    bins -= sees.embed_chain + 2 * sees.embed_diffuse_mask
    return {
        "model.c_s": shape("trunk.ipa_0.linear_q.weight")[1],
        "model.c_z": c_z,
        "model.num_tokens": shape("aatype_pred_net.4.weight")[0],
        "model.edge_embed.feature_width": feature_width,
        "model.edge_embed.num_bins": bins // (1 + sees.self_condition),
        "stage.depth": count(r"trunk\.ipa_(\d{1,3})\."),
        "stage.num_heads": num_heads,
        "stage.head_width": shape("trunk.ipa_0.linear_q.weight")[0] // num_heads,
        "stage.num_qk_points": qk_points,
        "stage.num_v_points": all_points - qk_points,
        "stage.transformer_layers": count(r"trunk\.seq_tfmr_0\.layers\.(\d{1,3})\."),
    }


def to_config(recipe: dict) -> dict:
    """Multiflow's config, resolved, of a recipe (defaults filled in) whose model Multiflow can hold.

    Raises UserError where the model is none of Multiflow's.
    """
    model = recipe["model"]
    stages = model["trunk"]["stages"]
    if len(stages) != 1 or stages[0].get("block") != "ipa" or model["head"]["kind"] != "mlp":
        raise UserError("export: Multiflow has one stage of IPA blocks and the mlp head, this model has others")
    if model["esm"]["kind"] != "none":
        raise UserError("export: Multiflow has no language model, this model has")
    if model["trunk"]["num_recycles"]:
        raise UserError("export: Multiflow does not recycle, this model does")
    if stages[0]["share_weights"] and stages[0]["depth"] > 1:
        raise UserError("export: Multiflow's blocks have weights of their own, this model's share them")
    for rate in ("dropout", "transformer_dropout"):
        if isinstance(stages[0][rate], dict):
            raise UserError(f"export: Multiflow has one {rate} for training and none after, this model has two")
    for switch in ("update_backbone", "update_edge", "update_last_edge"):
        if stages[0][switch] != IpaSettings.model_fields[switch].default:
            raise UserError(f"export: Multiflow has no blocks with {switch}={stages[0][switch]}, this model has")
    source = recipe | {"stage": IpaSettings().model_dump() | stages[0]}
    config: dict = {}
    for key, value in (_UNREAD | _FIXED).items():
        _set(config, key, value)
    for key, target in _SAME.items():
        if (value := _get(source, target)) is not _ABSENT:
            _set(config, key, value)
    for key, (target, names) in _CHOICES.items():
        value = _get(source, target)
        _set(config, key, next((old for old, new in names.items() if new == value), bool(value)))
    return config
