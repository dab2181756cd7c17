"""The plug-in: published files in, sequences out."""

import os
from dataclasses import replace

import pytest
import torch

from app.errors import UserError
from app.evaluation.refold.mpnn.model import ProteinMPNN
from app.evaluation.refold.protein_mpnn import ProteinMpnn, read
from tests.evaluation.refold.made_models import backbone, tiny_mpnn, write_protein_mpnn

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path):
    return write_protein_mpnn(tmp_path / "v_48_020.pt")


def changed(file, **entries):
    torch.save(torch.load(file, weights_only=True) | entries, file)
    return refused(file)


def refused(file) -> str:
    with pytest.raises(UserError) as caught:
        read(file)
    assert ProteinMpnn(file, CPU).fault() == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_published_layout_is_read(file):
    model, written = read(file), tiny_mpnn()
    assert model.features.neighbours == 6
    for name, value in written.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert ProteinMpnn(file, CPU).fault() is None
    assert not any(weight.requires_grad for weight in model.parameters())


def test_published_sizes_have_published_names():
    """Those of v_48_020.pt: 118 tensors, 1.66 million numbers."""
    shapes = {name: tuple(value.shape) for name, value in ProteinMPNN().state_dict().items()}
    assert len(shapes) == 118
    assert shapes["features.embeddings.linear.weight"] == (16, 66)
    assert shapes["features.edge_embedding.weight"] == (128, 416) and "features.edge_embedding.bias" not in shapes
    assert shapes["W_s.weight"] == (21, 128) and shapes["W_out.bias"] == (21,)
    assert shapes["encoder_layers.2.W11.weight"] == (128, 384) and shapes["encoder_layers.2.W1.weight"] == (128, 384)
    assert shapes["decoder_layers.2.W1.weight"] == (128, 512) and "decoder_layers.2.norm3.weight" not in shapes
    assert shapes["decoder_layers.0.dense.W_in.weight"] == (512, 128)


def test_files_that_hold_something_else_are_refused(file, tmp_path):
    assert "no such file" in refused(tmp_path / "absent.pt")
    assert "no such file" in refused(tmp_path)
    whole = torch.load(file, weights_only=True)["model_state_dict"]
    assert "lacks model_state_dict" in changed(file, model_state_dict=None)
    assert "has features.node_embedding.weight" in changed(
        file, model_state_dict=whole | {"features.node_embedding.weight": torch.ones(3)}
    )
    assert "lacks W_s.weight" in changed(file, model_state_dict={k: v for k, v in whole.items() if k != "W_s.weight"})
    assert "W_s.weight" in changed(file, model_state_dict=whole | {"W_s.weight": torch.ones(20, 16)})
    assert "W_s.weight" in changed(file, model_state_dict=whole | {"W_s.weight": "text"})
    assert "dimensions" in changed(file, model_state_dict=whole | {"W_e.bias": torch.ones(1).expand(10**9)})
    assert "dimensions" in changed(file, model_state_dict=whole, num_edges=0)


def test_damaged_files_are_refused(file):
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:10], b""):
        file.write_bytes(part)
        assert "cannot be read" in refused(file)


class Runs:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_in_a_file_is_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Runs(), "num_edges": 48}, file)
    assert "nothing in it was run" in refused(file)
    assert not (tmp_path / "executed").exists()


def test_a_batch_equals_singles_and_seeds_decide(file):
    plugin = ProteinMpnn(file, CPU)
    several = [backbone(9), backbone(6, 8, seed=1), backbone(14, seed=2)]
    together = plugin.redesign(several, 3, 1.0)
    for one, made in zip(several, together, strict=True):
        [alone] = plugin.redesign([one], 3, 1.0)
        assert alone.sequences == made.sequences and alone.nll == pytest.approx(made.nll, abs=1e-5)
        assert len(made.sequences) == len(set(made.sequences)) == 3
        assert {len(sequence) for sequence in made.sequences} == {len(one.sequence)}
        assert plugin.redesign([one], 2, 1.0)[0].sequences == made.sequences[:2]
    [other] = plugin.redesign([replace(several[0], seed=7)], 3, 1.0)
    assert other.sequences != together[0].sequences


def test_the_likelihood_is_of_known_residues(file):
    plugin, one = ProteinMpnn(file, CPU), backbone(9)
    assert plugin.redesign([replace(one, sequence="X" * 9)], 1, 0.1)[0].nll is None
    [made] = plugin.redesign([one], 1, 0.1)
    [own] = plugin.redesign([replace(one, sequence=made.sequences[0])], 1, 0.1)
    assert own.nll < made.nll  # likelier to the model than a random sequence
    assert plugin.redesign([replace(one, sequence="X" + one.sequence[1:])], 1, 0.1)[0].nll > 0


def test_the_hash_is_of_the_file(file, tmp_path):
    same = tmp_path / "copy.pt"
    same.write_bytes(file.read_bytes())
    (tmp_path / "other").mkdir()
    other = write_protein_mpnn(tmp_path / "other" / file.name, seed=1)
    first, second, third = (ProteinMpnn(path, CPU).sha256 for path in (file, same, other))
    assert first == second != third
    plugin = ProteinMpnn(file, CPU)
    assert plugin.sha256 == first
    file.write_bytes(other.read_bytes())  # another file of the same size in its place
    assert plugin.sha256 == third
