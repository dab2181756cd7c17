"""A run's folder as infer.py and evaluate leave it, made without either: helices and strands, a way from noise."""

import csv
import json
from hashlib import sha256
from pathlib import Path

import numpy as np

from app.chem.residues import AATYPES_WITH_X
from app.geometry.internal import backbone
from app.structure.write import write_pdb

HELIX, STRAND = (-57.8, -47.0), (-129.0, 123.0)  # phi and psi, degrees
STEPS = 6

DESIGNS = {"len40_0": [40], "len24_0": [24], "len20+12_0": [20, 12]}
"""Those that are done, by id, with the lengths of their chains; the second is a strand."""

FAILED = "len60_0"
HOSTILE = "</script><script>window.stolen = 1</script>"
JUNCTION = {"between": ["A9", "A10"], "c_n": 1.41, "ca_c_n": 117.0, "c_n_ca": 122.5}
COLUMNS = {"ca_ca_valid": [0.9, 0.7, 1.0], "sc_rmsd": ["skipped: no weights"] * 3, "designable": [1.25, -3.5, 10.0]}


def chain(length: int, torsions=HELIX) -> np.ndarray:
    """[N, 5, 3] angstrom, centred: N, CA, C, CB, O."""
    phi, psi = (np.full(length, np.radians(angle)) for angle in torsions)
    atoms = backbone(phi, psi, np.full(length, np.pi))
    return atoms - atoms[:, 1].mean(0)


def design(lengths: list[int], torsions=HELIX) -> np.ndarray:
    """[N, 37, 3] float32: chains 15 angstrom apart."""
    parts = [chain(length, torsions) + 15.0 * place for place, length in enumerate(lengths)]
    atom37 = np.zeros((sum(lengths), 37, 3), dtype=np.float32)
    atom37[:, :5] = np.concatenate(parts)
    return atom37


def run(folder: Path, trajectories: bool = True, evaluated: bool = True) -> Path:
    """A run of four designs, one of which failed."""
    records = []
    for number, (name, lengths) in enumerate(DESIGNS.items()):
        random = np.random.default_rng(number)
        atom37 = design(lengths, STRAND if number == 1 else HELIX)
        residues = len(atom37)
        aatypes = random.integers(0, 20, residues)
        chain_idx = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        res_idx = np.concatenate([np.arange(1, length + 1) for length in lengths])
        certainty = np.linspace(20, 100, residues)
        file = f"structures/{name}.pdb"
        write_pdb(folder / file, atom37, aatypes, chain_idx, res_idx, b_factors=certainty)
        files = [file]
        if trajectories:
            noise = random.normal(scale=10, size=(residues, 1, 3)) * (atom37 != 0).any(-1, keepdims=True)
            for kind, shares in (("path", np.linspace(0, 1, STEPS + 1)), ("clean", np.linspace(0.5, 1, STEPS))):
                frames = np.stack([share * atom37 + (1 - share) * noise for share in shares]).astype(np.float32)
                tokens = np.stack([np.where(np.arange(residues) < share * residues, aatypes, 20) for share in shares])
                file = f"trajectories/{name}_{kind}.pdb"
                write_pdb(folder / file, frames, tokens, chain_idx, res_idx, b_factors=shares[:, None] * certainty)
                files.append(file)
        file = f"steps/{name}.csv"
        (folder / "steps").mkdir(exist_ok=True)
        rows = [f"{step},{step / STEPS},{10.0 * number + step}," for step in range(1, STEPS + 1)]
        (folder / file).write_text("\n".join(["step,structure_t,ca_moved,certainty", *rows]) + "\n")
        files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in (*files, file)}
        sequence = "".join(AATYPES_WITH_X[index] for index in aatypes)
        chains = dict(zip("AB", lengths, strict=False))
        flags = ["one residue type above 40 %", HOSTILE] if number == 2 else []
        more = {"fixed": {"A": ["1-9"]}, "junctions": [JUNCTION]} if number == 0 else {}
        records.append(record(name, residues, chains, files=files, sequence=sequence, flags=flags, **more))
    records.append(record(FAILED, 60, {"A": 60}, status="failed", error=f"out of memory {HOSTILE}"))
    write_manifest(folder, records)
    if evaluated:
        evaluate(folder)
    return folder


def record(name: str, length: int, chains: dict[str, int], **more) -> dict:
    plain = {"task": "unconditional", "seed": 7, "status": "done", "error": None, "files": {}, "sequence": None}
    return {"id": name, "length": length, "chains": chains, **plain, "flags": [], **more}


def write_manifest(folder: Path, records: list[dict], **more) -> None:
    done = sum(isinstance(one, dict) and one.get("status") == "done" for one in records)
    counts = {"requested": len(records), "done": done, "failed": len(records) - done}
    settings = {"steps": STEPS, "sampler": {"name": "euler", "min_t": 0.01}, "note": HOSTILE}
    told = {"format": 2, "task": "unconditional", "seed": 1, "settings": settings, "versions": {"torch": "2.13.0"}}
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "manifest.json").write_text(json.dumps(told | counts | {"designs": records} | more))


def evaluate(folder: Path) -> None:
    (folder / "evaluation").mkdir(exist_ok=True)
    with (folder / "evaluation" / "designs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", *COLUMNS])
        rows.writerows(zip(DESIGNS, *COLUMNS.values(), strict=True))
    metrics = {"ca_ca_valid": {"mean": 0.867, "median": 0.9, "low": 0.7, "high": 1.0, "n": 3}}
    summary = {
        "format": 1,
        "designs": 3,
        "metrics": metrics,
        "set": {"diversity": {"clusters": 2, "diversity": 0.6667}},
    }
    summary |= {"skipped": {"sc_rmsd": "no weights"}, "provenance": {"seed": 0}}
    (folder / "evaluation" / "summary.json").write_text(json.dumps(summary))
