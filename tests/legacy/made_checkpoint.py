"""A checkpoint in Multiflow's layout with weights of our own, written without `multiflow.export`."""

import copy
from pathlib import Path

import torch
from omegaconf import OmegaConf

from app.legacy import multiflow_names as names
from app.training.module import CodesignModule
from tests.factories import generator, tiny_module

CONFIG = {
    "data": {"dataset": "pdb"},
    "interpolant": {
        "min_t": 0.01,
        "rots": {"corrupt": True, "train_schedule": "linear", "sample_schedule": "exp", "exp_rate": 10},
        "trans": {"corrupt": True, "batch_ot": True},
        "aatypes": {"temp": 0.1, "noise": 20.0, "do_purity": True, "interpolant_type": "masking"},
        "self_condition": "${model.edge_features.self_condition}",
        "twisting": {"use": False, "some_key_nobody_reads": [1, 2]},
    },
    "experiment": {
        "seed": 123,
        "training": {"aux_loss_weight": 0.25, "aatypes_loss_mean_or_sum": "mean"},
        "optimizer": {"lr": 0.0003},
        "checkpointer": {"dirpath": "ckpt/${data.dataset}/${now:%Y-%m-%d}_${oc.env:HOME}"},
    },
    "model": {
        "node_embed_size": 16,
        "edge_embed_size": 8,
        "transformer_dropout": 0.0,
        "node_features": {"c_s": "${model.node_embed_size}", "c_pos_emb": 8, "c_timestep_emb": 8, "use_mlp": True},
        "edge_features": {"c_p": "${model.edge_embed_size}", "self_condition": True, "embed_diffuse_mask": True},
        "ipa": {"c_s": "${model.node_embed_size}", "seq_tfmr_num_heads": 2},
    },
}


def config(**changes) -> dict:
    """CONFIG with values at dotted keys changed; None deletes."""
    made = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *parents, last = key.replace("__", ".").split(".")
        section = made
        for part in parents:
            section = section.setdefault(part, {})
        if value is None:
            del section[last]
        else:
            section[last] = value
    return made


def state_dict(module: CodesignModule) -> dict[str, torch.Tensor]:
    ours = {names.theirs(name): tensor.clone() for name, tensor in module.model.state_dict().items()}
    return {f"model.{name}": ours[name] for name in names.legacy_order(list(ours))}


def optimizer_state(tensors: dict[str, torch.Tensor]) -> dict:
    """Moments whose numbers tell which parameter they belong to."""
    source = generator(3)
    state = {
        index: {
            "step": torch.tensor(float(index)),
            "exp_avg": torch.randn(tensor.shape, generator=source),
            "exp_avg_sq": torch.rand(tensor.shape, generator=source),
        }
        for index, tensor in enumerate(tensors.values())
    }
    group = {"lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False, "maximize": False,
             "foreach": None, "capturable": False, "differentiable": False, "fused": None}  # fmt: skip
    return {"state": state, "param_groups": [{**group, "params": list(range(len(tensors)))}]}


def checkpoint(module: CodesignModule | None = None, cfg: dict | None = None) -> dict:
    tensors = state_dict(module or tiny_module())
    hyper_parameters = {
        "cfg": OmegaConf.create(cfg or CONFIG),
        "dataset_cfg": OmegaConf.create({}),
        "folding_cfg": None,
    }
    return {
        "epoch": 4,
        "global_step": 77,
        "pytorch-lightning_version": "2.0.4",
        "state_dict": tensors,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [optimizer_state(tensors)],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


def write(path: Path, made: dict | None = None) -> Path:
    torch.save(made or checkpoint(), path)
    return path


def adamw(module: CodesignModule, state: dict | None = None) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(module.model.parameters())
    if state is not None:
        optimizer.load_state_dict(state)
    return optimizer
