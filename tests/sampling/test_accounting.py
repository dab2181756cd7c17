"""What a run makes of failures, bad input and warnings: every design is accounted for, and nothing is written over."""

import json

import pytest
import torch

from app.errors import UserError
from app.sampling import sample
from app.sampling.interrupt import Interrupted
from tests.factories import tiny_model
from tests.sampling.made_inputs import UNCONDITIONAL, write_structure


class FailingFor:
    """The model, but out of memory or broken for some designs: those whose first CA starts near `victims`."""

    def __init__(self, victims, error=None, largest=None):
        self.model, self.victims, self.error, self.largest = tiny_model(), victims, error, largest
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch.res_mask))
        if self.largest and len(batch.res_mask) > self.largest:
            raise torch.OutOfMemoryError("out of memory: tried to allocate everything")
        hit = torch.tensor([any(torch.equal(row, victim) for victim in self.victims) for row in batch.trans_t])
        if hit.any() and self.error is not None:
            raise self.error
        said = self.model(batch)
        said.pred_trans[hit] = torch.nan
        return said


def noise_of(design):
    """Where the sampler puts the CA of a design to begin with."""
    first = sample(tiny_model(), steps=2, lengths=[design["length"]], seed=[design["seed"]])
    return first.path_trans[0, 0]


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), torch.OutOfMemoryError("out of memory")])
def test_one_design_that_fails_takes_no_other_with_it(run, error):
    _, whole = run(**UNCONDITIONAL | {"samples_per_length": 5})
    victim = whole["designs"][3]
    outcome, manifest = run(FailingFor([noise_of(victim)], error), **UNCONDITIONAL | {"samples_per_length": 5})
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (10, 9, 1)
    assert (outcome.requested, outcome.done, outcome.failed) == (10, 9, 1)
    for before, after in zip(whole["designs"], manifest["designs"], strict=True):
        if before == victim:
            assert (after["status"], after["sequence"], after["files"]) == ("failed", None, {})
            told = {None: "not finite", RuntimeError: "RuntimeError: broken"}.get(
                error and type(error), "out of memory"
            )
            assert told in after["error"]
            assert not (outcome.folder / "structures" / f"{after['id']}.pdb").exists()
        else:
            assert after["sequence"] == before["sequence"]
    assert (outcome.folder / "sequences.fasta").read_text().count(">") == 9


def test_a_batch_that_is_too_large_is_halved(run):
    model = FailingFor([], largest=2)
    _, manifest = run(model, task="unconditional", lengths=[9], samples_per_length=7)
    assert manifest["done"] == 7
    assert max(size for size in model.sizes if model.sizes.count(size) > 1) == 2


def test_later_batches_of_a_shape_that_failed_are_halved_before_they_fail(run):
    model = FailingFor([], largest=2)
    _, manifest = run(model, task="unconditional", lengths=[9], samples_per_length=16, max_batch_size=8)
    assert manifest["done"] == 16
    assert [size for size in model.sizes if size > 2] == [8, 4]


def test_what_no_halving_changes_ends_the_run_with_its_line_and_keeps_what_was_made(run, tmp_path):
    class Refusing(FailingFor):
        def __call__(self, batch):
            if batch.res_mask.shape[1] == 14:
                self.sizes.append(0)
                raise UserError("kernels.some=thing: takes 9 residues: set kernels.some=auto")
            return super().__call__(batch)

    model = Refusing([])
    with pytest.raises(UserError, match="takes 9 residues: set kernels"):
        run(model, **UNCONDITIONAL)
    assert model.sizes.count(0) == 1
    manifest = json.loads((tmp_path / "out0/manifest.json").read_text())
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 2, 2)
    assert manifest["designs"][3]["error"] == "not run: kernels.some=thing: takes 9 residues: set kernels.some=auto"


def test_a_file_that_cannot_be_written_fails_its_design(run, monkeypatch):
    from app.sampling import outputs

    def write(path, *arguments, **more):
        if path.name == "len9_1.pdb":
            raise OSError(28, "No space left on device", str(path))
        written(path, *arguments, **more)

    written = outputs.write_pdb
    monkeypatch.setattr(outputs, "write_pdb", write)
    _, manifest = run(**UNCONDITIONAL)
    assert (manifest["done"], manifest["failed"]) == (3, 1)
    assert "No space left" in manifest["designs"][1]["error"]


def test_interrupted_runs_account_for_every_design(run, tmp_path):
    class Interrupting(FailingFor):
        def __call__(self, batch):
            if batch.res_mask.shape[1] == 14:
                journal = (tmp_path / "out0/.journal-0.jsonl").read_text().splitlines()
                assert [json.loads(line)["id"] for line in journal] == ["len9_0", "len9_1"]
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(Interrupted):
        run(Interrupting([]), **UNCONDITIONAL)
    manifest = json.loads((tmp_path / "out0/manifest.json").read_text())
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 2, 2)
    assert manifest["designs"][3]["error"] == "not run: interrupted"


def test_a_folder_that_holds_another_run_is_left_alone(run, tmp_path):
    outcome, _ = run(**UNCONDITIONAL)
    before = {file: file.read_bytes() for file in outcome.folder.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=r"out=.*holds a run that was asked for.*new folder with out="):
        run(**UNCONDITIONAL, out=outcome.folder, seed=5)
    assert before == {file: file.read_bytes() for file in outcome.folder.rglob("*") if file.is_file()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    with pytest.raises(UserError, match=r"out=.*holds thesis.txt"):
        run(**UNCONDITIONAL, out=tmp_path / "mine")
    with pytest.raises(UserError, match=r"out=.*is a file"):
        run(**UNCONDITIONAL, out=tmp_path / "mine/thesis.txt")
    with pytest.raises(UserError, match=r"out=.*is not a folder"):
        run(**UNCONDITIONAL, out=tmp_path / "mine/thesis.txt/deeper")


def test_bad_input_leaves_nothing_behind(run, tmp_path):
    (tmp_path / "bad.pdb").write_text("")
    with pytest.raises(UserError, match=r"bad.pdb: the file is empty"):
        run(task="inverse_folding", input=tmp_path / "bad.pdb", out=tmp_path / "designs")
    assert not (tmp_path / "designs").exists()


def test_skipped_files_are_listed(run, tmp_path, capsys):
    write_structure(tmp_path / "in/good.pdb", 9)
    (tmp_path / "in/bad.pdb").write_text("")
    _, manifest = run(task="inverse_folding", input=tmp_path / "in")
    assert manifest["skipped"] == [{"input": str(tmp_path / "in/bad.pdb"), "reason": "the file is empty"}]
    assert (manifest["requested"], manifest["done"]) == (1, 1)
    assert f"skipped: {tmp_path / 'in/bad.pdb'}: the file is empty" in capsys.readouterr().out


def test_without_a_terminal_progress_is_lines(run, capsys):
    run(**UNCONDITIONAL, progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 4 designs, length 9" in lines
    assert "4 of 4 designs, length 14" in lines
    assert lines[-1].startswith("requested 4, done 4, failed 0: ")
    assert "\x1b" not in "".join(lines)


def test_a_degenerate_sequence_is_flagged_in_manifest_and_summary(run, capsys):
    model = tiny_model()

    def glycine(batch):
        said = model(batch)
        said.pred_logits = torch.nn.functional.one_hot(torch.full_like(said.pred_aatypes, 7), 21) * 50.0
        said.pred_aatypes = torch.full_like(said.pred_aatypes, 7)
        return said

    _, manifest = run(glycine, task="unconditional", lengths=[9])
    assert "degenerate sequence: 100% GLY" in manifest["designs"][0]["flags"]
    summary = capsys.readouterr().out.splitlines()[-2]
    assert summary.startswith("flagged 1: ") and "degenerate sequence 1" in summary
