"""The table of a design's steps, against the path that it tells of."""

import pandas
import pytest
import torch

from app.sampling import SAMPLERS, sample
from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.sampling.step_records import COLUMNS, step_records
from tests.factories import protein_batch, tiny_model
from tests.sampling.made_inputs import STEPS, partly_fixed, write_structure
from tests.sampling.recorder import LEGACY, MENDED, QUIET


def records(trajectory, task=Task.UNCONDITIONAL, design=None, sampler=MENDED):
    return pandas.DataFrame(step_records(sampler, task, design or Design("x", 9, 0), trajectory))


def test_rows_tell_what_happened_in_each_step():
    path = sample(tiny_model(), steps=8, sampler=QUIET, lengths=[9])
    table = records(path, sampler=QUIET)
    assert table.columns.tolist() == list(COLUMNS)
    assert table["step"].tolist() == list(range(1, 9))
    assert table["structure_t"].tolist() == table["token_t"].tolist()
    assert (table["structure_t"].iloc[0], table["structure_t"].iloc[-1]) == (0.01, 1.0)
    tokens, ca = path.path_aatypes[0], path.path_trans[0]
    assert table["masked"].tolist() == (tokens[1:] == 20).sum(-1).tolist()
    assert table["changed"].tolist() == (tokens[1:] != tokens[:-1]).sum(-1).tolist()
    moved = (ca[1:] - ca[:-1]).square().sum(-1).mean(-1).sqrt()
    torch.testing.assert_close(torch.tensor(table["ca_moved"]).float(), moved, atol=1e-3, rtol=0)
    certain = 100 * path.clean_certainty[0].mean(-1)
    torch.testing.assert_close(torch.tensor(table["certainty"]).float(), certain, atol=0.01, rtol=0)
    assert table["ca_rmsd"].iloc[-1] == pytest.approx(0, abs=1e-3)  # the last estimate is the design
    gaps = ((path.clean_trans[0].diff(dim=1).norm(dim=-1) - 3.8).abs() > 0.4).sum(-1)
    assert table["ca_gaps"].tolist() == gaps.tolist()


def test_times_of_what_is_given_are_those_that_the_model_is_told():
    clean = protein_batch(2, 9)
    frames = {"trans_1": clean.trans_1[:1], "rotmats_1": clean.rotmats_1[:1]}
    path = sample(tiny_model(), task="inverse_folding", steps=4, sampler=LEGACY, **frames)
    table = records(path, Task.INVERSE_FOLDING, sampler=LEGACY)
    assert (table["structure_t"] == 0.99).all()
    assert table["token_t"].iloc[-1] == table["token_t"].iloc[-2]  # whose last call sees the time before
    assert table["ca_moved"].isna().all()  # none is designed


def test_of_partial_design_the_designed_residues_are_told_of():
    design, clean = partly_fixed(9, range(4)), protein_batch(2, 9)
    given = {"trans_1": clean.trans_1, "rotmats_1": clean.rotmats_1, "aatypes_1": clean.aatypes_1}
    mask = (~design.fixed).float().expand(2, 9)
    path = sample(tiny_model(), task="partial", steps=4, diffuse_mask=mask, **given).one(0)
    table = records(path, Task.PARTIAL, design)
    assert (table["masked"] <= 5).all()
    moved = (path.path_trans[0, 1, 4:] - path.path_trans[0, 0, 4:]).square().sum(-1).mean().sqrt()
    assert table["ca_moved"].iloc[0] == pytest.approx(float(moved), abs=1e-3)


def test_a_run_writes_them_where_it_is_asked(run, tmp_path):
    path = write_structure(tmp_path / "x.pdb", 9, 11)
    for task in ({"task": "unconditional", "lengths": [9, "4+5"]}, {"task": "forward_folding", "input": path}):
        outcome, manifest = run(**task, step_records=True)
        for design in manifest["designs"]:
            assert list(design["files"])[-1] == f"steps/{design['id']}.csv"
            table = pandas.read_csv(outcome.folder / list(design["files"])[-1])
            assert table.columns.tolist() == list(COLUMNS) and len(table) == STEPS
    outcome, _ = run(task="unconditional", lengths=[9])
    assert not (outcome.folder / "steps").exists()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_single_residues_have_steps_too(sampler):
    path = sample(tiny_model(), steps=3, sampler=sampler, lengths=[1])
    assert records(path, design=Design("x", 1, 0))["ca_gaps"].tolist() == [0, 0, 0]
