"""How certain a model is of what is written: the probability that its last call gave to it."""

import pytest
import torch

from app.sampling import sample
from app.structure.read import read_structure
from tests.factories import protein_batch, tiny_model
from tests.sampling.made_inputs import write_structure
from tests.sampling.recorder import QUIET, Recorder, every_sampler, every_task, given


def probability(logits, tokens):
    """Among the twenty residue types, by hand; 0 for the mask token."""
    weights = logits[..., :20].double().exp()
    share = weights / weights.sum(-1, keepdim=True)
    found = share.gather(-1, tokens.clamp(max=19)[..., None])[..., 0]
    return torch.where(tokens == 20, 0.0, found).float()


@every_sampler
def test_of_every_point_it_is_what_the_call_before_it_says(sampler):
    model = Recorder()
    path = sample(model, steps=6, sampler=sampler, lengths=[9, 9])
    assert (
        path.path_certainty.shape == path.path_aatypes.shape and path.clean_certainty.shape == path.clean_aatypes.shape
    )
    assert (path.path_certainty[:, 0] == 0).all()  # no call yet
    for call, said in enumerate(model.said[:-1]):
        expected = probability(said.pred_logits, path.path_aatypes[:, call + 1])
        torch.testing.assert_close(path.path_certainty[:, call + 1], expected)
        expected = probability(said.pred_logits, path.clean_aatypes[:, call])
        torch.testing.assert_close(path.clean_certainty[:, call], expected)
    last = probability(model.said[-1].pred_logits, path.final_aatypes)
    torch.testing.assert_close(path.final_certainty, last)
    assert path.clean_certainty[:, -1].equal(path.final_certainty)


def test_it_does_not_depend_on_the_temperature():
    """At which tokens are drawn: of a cold design, too, it says what the model thinks."""
    cold = QUIET.model_copy(update={"token_temperature": 0.001, "sequence": "argmax"})
    model = Recorder()
    path = sample(model, steps=3, sampler=cold, lengths=[9])
    assert (path.final_certainty < 0.9).all()
    torch.testing.assert_close(path.final_certainty, probability(model.said[-1].pred_logits, path.final_aatypes))


@every_task
def test_without_the_path_it_is_the_same(task):
    whole, last = (sample(tiny_model(), task=task, steps=4, keep_path=keep, **given(task)) for keep in (True, False))
    assert last.path_certainty.shape[1] == last.clean_certainty.shape[1] == 1
    assert last.final_certainty.equal(whole.final_certainty)


def test_what_is_given_is_certain_and_what_is_not_known_is_not():
    aatypes = protein_batch(2, 9).aatypes_1.clone()
    aatypes[0, 3] = 20
    path = sample(tiny_model(), task="forward_folding", steps=3, aatypes_1=aatypes)
    assert path.final_certainty.equal((aatypes != 20).float())
    absent = sample(tiny_model(), steps=3, lengths=[9, 5])
    assert (absent.final_certainty[1, 5:] == 0).all() and (absent.final_certainty[1, :5] > 0).all()
    headless = sample(tiny_model(head={"kind": "none"}), steps=3, lengths=[9])
    assert (headless.final_certainty == 0).all()


def test_structures_have_it_as_b_factors(run, tmp_path):
    outcome, manifest = run(task="unconditional", lengths=[9], trajectories=True)
    made = sample(tiny_model(), steps=6, lengths=[9], seed=[manifest["designs"][0]["seed"]])
    for file, expected in zip(
        manifest["designs"][0]["files"],
        [made.final_certainty[0]] * 2 + [made.path_certainty[0, 0], made.clean_certainty[0, 0]],
        strict=True,
    ):
        b_factors = torch.from_numpy(read_structure(outcome.folder / file).b_factors)
        torch.testing.assert_close(b_factors, 100 * expected, atol=0.006, rtol=0)
    path = write_structure(tmp_path / "x.pdb", 9)
    outcome, manifest = run(task="forward_folding", input=path)
    assert (read_structure(outcome.folder / next(iter(manifest["designs"][0]["files"]))).b_factors == 100).all()


@pytest.mark.parametrize("formats", [["pdb"], ["mmcif"], ["pdb", "mmcif"]])
def test_only_the_formats_asked_for_are_written(run, formats):
    outcome, manifest = run(task="unconditional", lengths=[9], formats=formats)
    suffixes = [{"pdb": "pdb", "mmcif": "cif"}[one] for one in formats]
    assert list(manifest["designs"][0]["files"]) == [f"structures/len9_0.{suffix}" for suffix in suffixes]
    assert len(list((outcome.folder / "structures").iterdir())) == len(formats)
