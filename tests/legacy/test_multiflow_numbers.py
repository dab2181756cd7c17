"""Every number that the original Multiflow left in ../shared/legacy_multiflow, one test an entry."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from app.flow import rotations as rotation_path
from app.flow import tokens, translations
from app.geometry import rotations
from app.geometry.backbone import to_atom37
from app.legacy import multiflow
from app.legacy import multiflow_names as names
from app.model.codesign import CodesignModel, ModelSettings
from app.sampling import SAMPLERS, sample
from app.types import Frames, NoisyBatch
from tests.conftest import SHARED

FILES = ("forward", "losses", "params_after_step", "forward_folding", "steps")
ATOL = 1e-4  # of modules and outputs
ANGSTROM = 1e-3  # of translations
FOLDED = 5e-3  # angstrom, of atoms after twelve steps
RELATIVE = 1e-4  # of losses

BLOCK_PARTS = {
    "ipa": "attention",
    "ipa_ln": "norm",
    "seq_tfmr": "transformer",
    "post_tfmr": "after_transformer",
    "node_transition": "node_transition",
    "bb_update": "backbone_update.linear",
    "edge_transition": "edge_transition",
}
MODULES = {"node_feature_net": "node_embed", "edge_feature_net": "edge_embed"} | {
    f"{theirs}_{index}": f"trunk.stages.0.{index}.{ours}"
    for index in range(3)
    for theirs, ours in BLOCK_PARTS.items()
    if not (theirs == "edge_transition" and index == 2)
}
OUTPUTS = ("pred_trans", "pred_rotmats", "pred_logits", "pred_aatypes")
LOSSES = ("trans_loss", "rots_vf_loss", "aatypes_loss", "auxiliary_loss", "train_loss")
PATHS = ("path_atom37", "path_aatypes", "clean_atom37", "clean_aatypes")


def parameters() -> list[str]:
    """The names in params_after_step, at collection; without the file one name that makes the test skip."""
    path = SHARED / "legacy_multiflow/params_after_step.safetensors"
    if not path.is_file():
        return ["absent"]
    with safe_open(path, "pt") as file:
        return sorted(file.keys())


PARAMETERS = parameters()


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "legacy_multiflow"


@pytest.fixture(scope="module")
def read(folder):
    return {name: load_file(folder / f"{name}.safetensors") for name in FILES}


@pytest.fixture(scope="module")
def checkpoint(folder):
    return multiflow.load(folder / "last.ckpt")


def batch(entries: dict[str, torch.Tensor]) -> NoisyBatch:
    return NoisyBatch(**{key.removeprefix("in."): value for key, value in entries.items() if key.startswith("in.")})


def close(found, expected, atol=ATOL):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.to(expected.dtype), expected, atol=atol, rtol=0)


def test_no_entry_is_left_untested(read, folder):
    inputs = {"forward": "in.", "losses": "in."}
    tested = {
        "forward": {f"out.{name}" for name in OUTPUTS} | {f"block.{name}" for name in MODULES},
        "losses": {f"eval.{name}" for name in LOSSES} | {"step.loss", "step.grad_norm"},
        "params_after_step": set(PARAMETERS),
        "forward_folding": {*PATHS, "trans_0", "rotmats_0", "aatypes_1", "num_timesteps"},
        "steps": set(STEPS) | STEP_INPUTS,
    }
    for name, entries in read.items():
        assert {key for key in entries if not key.startswith(inputs.get(name, " "))} == tested[name]
    on_disk = {file.stem for file in folder.glob("*.safetensors")} | {file.name for file in folder.glob("*.json")}
    assert on_disk == {*FILES, "published_parameters.json"}


# The model


@pytest.fixture(scope="module")
def forward(read, checkpoint):
    """Outputs, and what every submodule gave."""
    model, seen = checkpoint.module.model, {}

    def see(theirs, module, inputs, output):
        if theirs.startswith("edge_transition"):  # the original masks after the module
            output = module.forward(*inputs[:-1], torch.ones_like(inputs[-1]))
        seen[theirs] = output

    hooks = [model.get_submodule(ours).register_forward_hook(partial(see, theirs)) for theirs, ours in MODULES.items()]
    with torch.no_grad():
        prediction = model(batch(read["forward"]))
        seen["edge_feature_net"] = model.embed(batch(read["forward"])).edge  # the original masks within the module
    for hook in hooks:
        hook.remove()
    return prediction, seen


@pytest.mark.parametrize("name", OUTPUTS)
def test_output(read, forward, name):
    expected = read["forward"][f"out.{name}"]
    close(getattr(forward[0], name), expected, ANGSTROM if name == "pred_trans" else ATOL)


@pytest.mark.parametrize("name", MODULES)
def test_submodule(read, forward, name):
    found, expected = forward[1][name], read["forward"][f"block.{name}"]
    if name.startswith("ipa_") and not name.startswith("ipa_ln"):
        # In rows of absent residues the original attends to all, which its block masks away; ours give zeros there.
        present = read["forward"]["in.res_mask"].bool()
        found, expected = found[present], expected[present]
    close(found, expected)


# Losses and the optimizer's step


@pytest.mark.parametrize("name", LOSSES)
def test_loss(read, checkpoint, name):
    with torch.no_grad():
        found = checkpoint.module.losses(batch(read["losses"]))
    torch.testing.assert_close(found[name], read["losses"][f"eval.{name}"], atol=0, rtol=RELATIVE)


@pytest.fixture(scope="module")
def stepped(read, folder):
    """One optimizer step on from the checkpoint, by ourselves: loss, norm of the gradient, parameters by their name."""
    loaded = multiflow.load(folder / "last.ckpt")
    module = loaded.module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    optimizer = torch.optim.AdamW(module.model.parameters())
    optimizer.load_state_dict(loaded.optimizer_state)
    loss = module.losses(batch(read["losses"]))["train_loss"].mean()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in module.model.parameters()]).norm()
    optimizer.step()
    after = {f"model.{names.theirs(name)}": p.detach() for name, p in module.model.named_parameters()}
    return {"step.loss": loss.detach(), "step.grad_norm": norm}, after


@pytest.mark.parametrize("name", ["step.loss", "step.grad_norm"])
def test_step(read, stepped, name):
    torch.testing.assert_close(stepped[0][name][None], read["losses"][name], atol=0, rtol=RELATIVE)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_after_the_step(read, stepped, name):
    close(stepped[1][name], read["params_after_step"][name], 2e-4)


def test_parameters_after_the_step_are_nearly_all_exact(read, stepped):
    expected = read["params_after_step"]
    assert set(stepped[1]) == set(expected)
    off = torch.cat([(stepped[1][name] - value).abs().flatten() for name, value in expected.items()])
    assert (off <= 1e-6).float().mean() >= 0.995


# Sampling


@pytest.fixture(scope="module")
def folded(read, checkpoint):
    entries = read["forward_folding"]
    return sample(
        checkpoint.module.model,
        task="forward_folding",
        steps=int(entries["num_timesteps"]),
        sampler=checkpoint.module.recipe.sampler,
        trans_0=entries["trans_0"],
        rotmats_0=entries["rotmats_0"],
        aatypes_1=entries["aatypes_1"],
        seed=7,
    )


@pytest.mark.parametrize("name", PATHS)
def test_forward_folding(read, folded, name):
    close(getattr(folded, name), read["forward_folding"][name], FOLDED if "atom37" in name else 0)


def test_the_legacy_sampler_is_the_checkpoints(checkpoint):
    assert checkpoint.module.recipe.sampler == SAMPLERS["multiflow_legacy"]


def frames(s: dict[str, torch.Tensor]) -> Frames:
    return Frames(s["atoms.rotmats"], s["atoms.trans"])


def token_probabilities(s: dict[str, torch.Tensor], when: str) -> torch.Tensor:
    (t, step), (temperature, noise) = s[f"aatypes.t_dt.{when}"].tolist(), s["aatypes.temp_noise"].tolist()
    return tokens.step_probabilities(
        s["aatypes.logits"], s["aatypes.aatypes_t"], tokens.rates(t, step, noise),
        kind="masking", temperature=temperature, resample_unmasked=True,
    )  # fmt: skip


STEPS = {
    "so3.calc_rot_vf": lambda s: rotations.rotation_vector_field(s["so3.base"], s["so3.target"], "positive"),
    "so3.geodesic_t": lambda s: rotations.geodesic(s["so3.t"][..., 0], s["so3.base"], s["so3.target"], "positive"),
    "atoms.atom37_from_trans_rot": lambda s: to_atom37(frames(s)),
    "atoms.to_atom37": lambda s: to_atom37(frames(s), oxygen="collapsed"),
    # The estimates that these steps went towards are the batch with its two examples exchanged.
    "trans.step": lambda s: translations.euler_step(
        translations.share(29 / 30, 0.0), s["atoms.trans"], s["atoms.trans"].flip(0)
    ),
    "rots.step_exp": lambda s: rotation_path.euler_step(
        rotation_path.share(0.08, 0.5, "exponential"), s["atoms.rotmats"], s["atoms.rotmats"].flip(0), "positive"
    ),
    "aatypes.step_probs.early": lambda s: token_probabilities(s, "early"),
    "aatypes.step_probs.late": lambda s: token_probabilities(s, "late"),
    "ot.paired": lambda s: translations.pair_by_transport(s["ot.noise"], s["ot.data"], torch.ones(4, 11), inverse=True),
}
STEP_INPUTS = {
    "so3.base", "so3.target", "so3.t", "atoms.rotmats", "atoms.trans", "ot.noise", "ot.data", "aatypes.logits",
    "aatypes.aatypes_t", "aatypes.temp_noise", "aatypes.t_dt.early", "aatypes.t_dt.late",
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_single_function(read, name):
    close(STEPS[name](read["steps"]), read["steps"][name])


# Sizes of the published model


def test_published_parameters(folder):
    published = json.loads((folder / "published_parameters.json").read_text())
    stages = [{"block": "ipa", "depth": 8}]
    with torch.device("meta"):
        model = CodesignModel(ModelSettings(trunk={"stages": stages}))
    ours = [[names.theirs(name), list(parameter.shape)] for name, parameter in model.named_parameters()]
    assert len(published) == 713
    assert ours == published
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_786_309
