"""The protocol, on stand-ins whose answers are known, and as a whole on tiny models."""

import dataclasses
import logging
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import biotite.structure as struc
import numpy as np
import pytest
import torch

from app.chem import atoms
from app.chem.residues import to_sequence
from app.errors import UserError
from app.evaluation.refold import COLUMNS, RefoldSettings, plugin, provenance, refold, registry, why_not
from app.evaluation.refold.columns import CODESIGN, LIKELIHOOD, REDESIGN
from app.evaluation.refold.compare import backbone_rmsd, likeness
from app.evaluation.refold.plugin import Folded, Folder, InverseFolder, Redesign
from app.evaluation.refold.settings import PLUGINS
from tests.evaluation.refold.made_models import protein, write_esmfold, write_protein_mpnn
from tests.factories import generator, random_rotations


class Writes(InverseFolder):
    """Sequences that say which design they are of and which of its sequences they are."""

    name, _model = "protein_mpnn", None
    wrong = None  # an error for backbones of 13 residues

    def check(self):
        pass

    def load(self):
        self.loaded = True

    def files(self):
        return [self.weights]

    def redesign(self, backbones, count, temperature):
        if self.wrong and any(len(one.sequence) == 13 for one in backbones):
            raise self.wrong
        return [
            Redesign(tuple("ACDEFGHI"[k] * len(one.sequence) for k in range(count)), nll=len(one.sequence) / 10)
            for one in backbones
        ]


class Folds(Folder):
    """What a sequence folds into is told by the test; anything else folds into a point cloud of its own."""

    name, _model = "esmfold", None
    answers: dict = {}  # noqa: RUF012
    largest = 10**9  # residues in a batch that memory suffices for
    batches: list = []  # noqa: RUF012

    def check(self):
        pass

    def files(self):
        return [self.weights]

    def fold(self, sequences):
        self.batches.append([sum(map(len, one)) for one in sequences])
        if sum(self.batches[-1]) > self.largest:
            raise torch.OutOfMemoryError("out of memory")
        return [self.answers.get(one) or self.elsewhere(sum(map(len, one))) for one in sequences]

    @staticmethod
    def elsewhere(length):
        return Folded(20 * torch.randn(length, 3, 3, generator=generator(length)), torch.full((length,), 40.0))


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Settings by which the stand-ins are used."""
    monkeypatch.setattr(plugin, "_class_of", {"protein_mpnn": Writes, "esmfold": Folds}.__getitem__)
    for name, value in (("answers", {}), ("batches", []), ("largest", 10**9)):
        monkeypatch.setattr(Folds, name, value)
    for name in PLUGINS:
        (tmp_path / name).write_text(name)
    weights = {name: tmp_path / name for name in PLUGINS}
    return RefoldSettings(weights=weights, device="cpu", cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Weights of tiny models."""
    folder = tmp_path_factory.mktemp("models")
    return {"protein_mpnn": write_protein_mpnn(folder / "v_48_020.pt"), "esmfold": write_esmfold(folder / "esmfold")}


def backbone_of(design) -> torch.Tensor:
    return torch.from_numpy(design.atom37[:, [atoms.N, atoms.CA, atoms.C]])


def near(design, distance: float, plddt: float, seed: int = 0) -> Folded:
    """The design turned and moved, every atom displaced by `distance` in a random direction."""
    backbone = backbone_of(design)
    away = torch.nn.functional.normalize(torch.randn(backbone.shape, generator=generator(seed)), dim=-1)
    moved = (backbone + distance * away) @ random_rotations(1, seed=seed)[0].mT + 25
    return Folded(moved, torch.full((len(backbone),), plddt))


def alike(one: dict, other: dict) -> bool:
    """Equal, numbers to what another size of batch rounds off."""
    return one == {k: pytest.approx(v, abs=1e-3) if isinstance(v, float) else v for k, v in other.items()}


def test_the_best_of_eight_and_the_designs_own_sequence(stand_ins):
    design = protein(50, 30)
    own = to_sequence(design.aatype)
    Folds.answers[own[:50], own[50:]] = near(design, 3.0, 61.0)
    Folds.answers["C" * 50, "C" * 30] = near(design, 1.2, 88.0, seed=1)
    Folds.answers["F" * 50, "F" * 30] = near(design, 1.8, 91.0, seed=2)
    Folds.answers["H" * 50, "H" * 30] = near(design, 2.6, 95.0, seed=3)
    row = refold({"a": design}, stand_ins)["a"]
    assert tuple(row) == COLUMNS
    assert row["codesign_rmsd"] == pytest.approx(3.0, rel=0.03) and row["codesign_designable"] is False
    assert row["codesign_plddt"] == pytest.approx(61.0)
    assert row["sc_rmsd"] == pytest.approx(1.2, rel=0.03) and row["designable"] is True
    assert row["sc_sequence"] == "C" * 50 + "/" + "C" * 30 and row["sc_plddt"] == pytest.approx(88.0)
    assert row["sc_share"] == 2 / 8 and row["sequence_nll"] == 8.0
    assert 0 < row["codesign_tm"] < row["sc_tm"] < 1
    stricter = refold({"a": design}, stand_ins.model_copy(update={"designable": 1.0}))["a"]
    assert stricter["designable"] is False and stricter["sc_share"] == 0.0
    fewer = refold({"a": design}, stand_ins.model_copy(update={"sequences": 1}))["a"]
    assert fewer["sc_sequence"][0] == "A" and fewer["sc_rmsd"] > 10


def test_the_rmsd_is_biotites():
    one, other = protein(20), protein(20, seed=1)
    arrays = []
    for design in (one, other):
        array = struc.AtomArray(60)
        array.coord = backbone_of(design).flatten(0, 1).numpy()
        arrays.append(array)
    fitted, _ = struc.superimpose(*arrays)
    expected = struc.rmsd(arrays[0], fitted)
    assert backbone_rmsd(backbone_of(other), backbone_of(one)) == pytest.approx(float(expected), abs=1e-3)
    assert backbone_rmsd(-backbone_of(one), backbone_of(one)) > 1  # a mirror image is none
    assert backbone_rmsd(near(one, 0.0, 0).backbone, backbone_of(one)) == pytest.approx(0, abs=1e-4)


def test_the_tm_score_is_of_ca_and_plddt_a_mean():
    design = backbone_of(protein(30))
    folded = design.clone()
    folded[:, [0, 2]] += 50 * torch.randn(30, 2, 3, generator=generator())
    tm, plddt = likeness(Folded(folded, torch.linspace(40, 80, 30)), design)
    assert tm == pytest.approx(1.0, abs=1e-4) and plddt == pytest.approx(60.0, abs=1e-4)


def test_exactly_at_the_limit_is_designable(stand_ins):
    design = protein(40)
    Folds.answers["A" * 40,] = near(design, 2.0, 80.0)
    found = refold({"a": design}, stand_ins)["a"]["sc_rmsd"]
    for limit, designable in ((found, True), (found - 1e-6, False)):
        row = refold({"a": design}, stand_ins.model_copy(update={"designable": limit}))["a"]
        assert row["designable"] is designable and row["sc_share"] == designable / 8


def test_designs_do_not_depend_on_each_other(tiny, tmp_path):
    designs = {"a": protein(9), "b": protein(5, 6, seed=1), "c": protein(9, seed=2), "d": protein(1, seed=3)}

    def run(names, cache):
        settings = RefoldSettings(weights=tiny, sequences=2, temperature=1.0, device="cpu", cache=tmp_path / cache)
        return refold({name: designs[name] for name in names}, settings)

    together = run("abcd", "first")
    for name, one in (run("dcba", "second") | run("c", "third")).items():
        assert alike(one, together[name])
    assert together["a"]["sc_sequence"] != together["c"]["sc_sequence"]
    assert together["b"]["sc_sequence"].index("/") == 5
    designs["other"] = designs["a"]
    assert run(["other"], "fourth")["other"]["sc_sequence"] != together["a"]["sc_sequence"]  # a seed of its own


def test_what_is_known_is_not_computed_again(tiny, tmp_path, monkeypatch):
    designs = {"a": protein(9), "b": protein(7, seed=1)}
    settings = RefoldSettings(weights=tiny, sequences=2, temperature=1.0, device="cpu", cache=tmp_path / "cache")
    told = []
    expected = refold(designs, settings, lambda done, wanted: told.append((done, wanted)))
    assert told[0] == (0, 6) and told[-1] == (6, 6)

    from app.evaluation.refold.esmfold import EsmFold

    loaded = []
    load = EsmFold.load
    monkeypatch.setattr(EsmFold, "load", lambda self: loaded.append(1) or load(self))
    assert refold(designs, settings) == expected and not loaded
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 8  # two backbones and six sequences
    for file in files[::2]:
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    files[1].write_bytes(b"")
    again = refold(designs, settings)
    assert all(alike(again[name], expected[name]) for name in designs) and len(loaded) == 1
    moved = dataclasses.replace(designs["a"], atom37=designs["a"].atom37 * np.float32(1.5))
    for changed in (
        refold({"a": moved}, settings),
        refold({"a": designs["a"]}, settings.model_copy(update={"temperature": 9.0})),
        refold({"a": designs["a"]}, settings.model_copy(update={"seed": 1})),
    ):
        assert changed["a"]["sc_sequence"] != expected["a"]["sc_sequence"]


def test_other_weights_are_not_mistaken_for_these(tiny, tmp_path):
    designs = {"a": protein(9)}
    other = {"protein_mpnn": write_protein_mpnn(tmp_path / "other.pt", seed=1)}
    other["esmfold"] = write_esmfold(tmp_path / "other", seed=1)
    first, second = (
        refold(designs, RefoldSettings(weights=weights, sequences=2, device="cpu", cache=tmp_path / "cache"))["a"]
        for weights in (tiny, other)
    )
    assert first["codesign_rmsd"] != second["codesign_rmsd"] and first["sequence_nll"] != second["sequence_nll"]


def test_a_cache_that_cannot_be_written_costs_nothing_else(stand_ins, tmp_path, caplog):
    (tmp_path / "taken").write_text("")
    with caplog.at_level(logging.WARNING):
        row = refold({"a": protein(9)}, stand_ins.model_copy(update={"cache": tmp_path / "taken"}))["a"]
    assert isinstance(row["sc_rmsd"], float)
    assert sum("results are not kept" in record.message for record in caplog.records) == 1


def test_batches_are_halved_where_memory_does_not_suffice(stand_ins):
    Folds.largest = 70
    designs = {f"d{index}": protein(30, seed=index) for index in range(3)} | {"long": protein(71, seed=9)}
    rows = refold(designs, stand_ins)
    for index in range(3):
        assert isinstance(rows[f"d{index}"]["sc_rmsd"], float) and isinstance(rows[f"d{index}"]["codesign_rmsd"], float)
    for column in (*CODESIGN, *REDESIGN):
        assert rows["long"][column] == "skipped: esmfold ran out of memory on the cpu device"
    assert rows["long"]["sequence_nll"] == 7.1
    tried = [len(batch) for batch in Folds.batches if batch[0] == 30]
    assert tried[:3] == [11, 6, 3] and max(tried[3:]) <= 2  # what failed is not tried again
    assert [len(batch) for batch in Folds.batches if batch[0] == 71] == [2, 1]
    assert sum(size for size in tried if size <= 2) == 11  # 3 designs' own and the 8 sequences that they share


def test_a_design_that_fails_stops_no_other(stand_ins, monkeypatch):
    monkeypatch.setattr(Writes, "wrong", ValueError("no such\nbackbone"))
    rows = refold({"good": protein(9), "bad": protein(13), "fine": protein(20)}, stand_ins)
    for column in (*REDESIGN, *LIKELIHOOD):
        assert rows["bad"][column] == "skipped: protein_mpnn failed (ValueError: no such backbone)"
    assert isinstance(rows["bad"]["codesign_rmsd"], float)
    assert isinstance(rows["good"]["sc_rmsd"], float) and isinstance(rows["fine"]["sc_rmsd"], float)


def test_designs_without_a_whole_sequence(stand_ins):
    design = protein(12)
    none = dataclasses.replace(design, aatype=np.full(12, 20))
    part = dataclasses.replace(design, aatype=np.where(np.arange(12) < 3, 20, design.aatype))
    rows = refold({"none": none, "part": part}, stand_ins)
    assert rows["none"]["codesign_rmsd"] == "skipped: it has no sequence"
    assert rows["part"]["codesign_tm"] == "skipped: 3 of its residues are X"
    assert all(isinstance(row["sc_rmsd"], float) for row in rows.values())


def test_longer_designs_than_wanted_are_told(stand_ins):
    rows = refold({"short": protein(9), "long": protein(10)}, stand_ins.model_copy(update={"longest": 9}))
    assert set(rows["long"].values()) == {"skipped: 10 residues, over 9"}
    assert isinstance(rows["short"]["sc_rmsd"], float)
    assert refold({}, stand_ins) == {}


def test_each_design_is_read_once(stand_ins):
    """An evaluation hands over a mapping that reads a design's file whenever it is asked for it."""
    read = []

    class Files(Mapping):
        def __getitem__(self, name):
            read.append(name)
            return protein(9)

        def __iter__(self):
            return iter("cab")

        def __len__(self):
            return 3

    assert list(refold(Files(), stand_ins)) == [*"cab"] and read == [*"cab"]


def test_oxygens_that_a_file_lacks_are_placed(tiny, tmp_path):
    design = protein(9)
    design.atom_mask[:, atoms.O] = False
    design.atom37[:, atoms.O] = 0
    settings = RefoldSettings(weights=tiny, sequences=1, device="cpu", cache=tmp_path / "cache")
    assert isinstance(refold({"a": design}, settings)["a"]["sc_rmsd"], float)
    assert (design.atom37[:, atoms.O] == 0).all()


def test_without_weights_columns_say_so(tiny, tmp_path):
    nothing = RefoldSettings(device="cpu")
    assert "--esmfold FOLDER" in why_not(nothing) and "--protein-mpnn FILE" in why_not(nothing)
    assert why_not(RefoldSettings(weights=tiny, device="cpu")) is None
    row = refold({"a": protein(9)}, nothing)["a"]
    assert tuple(row) == COLUMNS and all(value.startswith("skipped: no weights, give --") for value in row.values())
    one = {"cache": tmp_path / "cache", "sequences": 1, "device": "cpu"}
    row = refold({"a": protein(9)}, RefoldSettings(weights={"esmfold": tiny["esmfold"]}, **one))["a"]
    assert isinstance(row["codesign_rmsd"], float) and "--protein-mpnn" in row["designable"]
    row = refold({"a": protein(9)}, RefoldSettings(weights={"protein_mpnn": tiny["protein_mpnn"]}, **one))["a"]
    assert (
        isinstance(row["sequence_nll"], float)
        and "--esmfold" in row["designable"]
        and "--esmfold" in row["codesign_tm"]
    )


def test_weights_that_cannot_be_used_are_a_reason(tiny, tmp_path):
    absent = {"protein_mpnn": tmp_path / "absent.pt", "esmfold": tmp_path / "absent"}
    assert f"--esmfold {tmp_path / 'absent'}: no such folder" in why_not(RefoldSettings(weights=absent, device="cpu"))
    half = write_esmfold(tmp_path / "half")
    whole = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    settings = RefoldSettings(weights=tiny | {"esmfold": half}, device="cpu", cache=tmp_path / "cache", sequences=1)
    row = refold({"a": protein(9), "b": protein(8)}, settings)["a"]
    assert row["sc_rmsd"] == row["codesign_rmsd"] and row["sc_rmsd"].startswith(
        "skipped: esmfold failed (UserError: cannot"
    )
    assert isinstance(row["sequence_nll"], float)


def test_weights_that_may_not_be_read_are_a_reason(tiny, monkeypatch):
    monkeypatch.setattr(os, "access", lambda file, _: file.name != "config.json")
    told = why_not(RefoldSettings(weights={"esmfold": tiny["esmfold"]}, device="cpu"))
    assert told.startswith(f"--esmfold {tiny['esmfold']}: config.json may not be read")


def test_provenance_names_what_took_part(tiny):
    told = provenance(RefoldSettings(weights={"protein_mpnn": tiny["protein_mpnn"]}, device="cpu"))
    assert told["sequences"] == 8 and told["temperature"] == 0.1 and told["designable"] == 2.0
    assert told["protein_mpnn"]["weights"] == str(tiny["protein_mpnn"]) and len(told["protein_mpnn"]["sha256"]) == 64
    assert "esmfold" not in told


def test_only_plug_ins_of_the_registry_can_be_chosen():
    with pytest.raises(ValueError, match="'os' is no plug-in"):
        RefoldSettings(weights={"os": "x"})
    for faulty in ({"sequences": 0}, {"temperature": -1}, {"designable": 0}, {"other": 1}):
        with pytest.raises(ValueError):
            RefoldSettings(**faulty)
    with pytest.raises(UserError, match="--device=tpu"):
        why_not(RefoldSettings(device="tpu"))


def test_every_plug_in_of_the_registry_is_there():
    for name in PLUGINS:
        kind = plugin._class_of(name)
        assert kind.name == name and issubclass(kind, InverseFolder if name in plugin.INVERSE_FOLDERS else Folder)


def test_another_plug_in_is_a_module_and_a_line(monkeypatch, stand_ins, tmp_path):
    module = types.ModuleType("other")
    module.PLUGIN = type("Other", (Writes,), {"name": "other"})
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "app.evaluation.refold.other", module)
    for known in (registry.INVERSE_FOLDERS, registry.PLUGINS):
        monkeypatch.setitem(known, "other", registry.Wanted("FILE", "weights of another kind"))
    settings = RefoldSettings(weights={"other": tmp_path / "esmfold"}, device="cpu", cache=tmp_path / "others")
    assert refold({"a": protein(9)}, settings)["a"]["sequence_nll"] == 0.9
    assert "--other FILE" in why_not(RefoldSettings(device="cpu"))
    with pytest.raises(ValueError, match="--other and --protein-mpnn do the same"):
        RefoldSettings(weights={"other": "x", "protein_mpnn": "y"})


def test_every_column_is_defined():
    docs = Path(__file__).parents[3] / "docs"
    defined = "".join(file.read_text() for file in docs.glob("metrics*.md"))
    assert [column for column in COLUMNS if f"`{column}`" not in defined] == []
