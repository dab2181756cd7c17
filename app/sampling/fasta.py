"""What sequences.fasta says of a design: an entry, or one for each chain, and whether it is designed."""

from typing import Any


def entries(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(header, sequence) of each chain of a finished design, from its record in the manifest.

    A header says of the sequence that it is `designed`, `given`, `partly_designed`, or `none`: X wherever it was to be
    designed, as by a model without a sequence head. Fixed residues are named by their numbers in the structure.
    """
    found, start = [], 0
    for chain, length in record["chains"].items():
        sequence = record["sequence"][start : start + length]
        start += length
        about = f"task={record['task']} {_origin(record, chain, sequence)}"
        if len(record["chains"]) == 1:
            found.append((f"{record['id']} {about} length={length}", sequence))
        else:
            found.append((f"{record['id']}.{chain} {about} design={record['id']} length={length}", sequence))
    return found


def _origin(record: dict[str, Any], chain: str, sequence: str) -> str:
    designed, fixed = record["designed"][chain], record.get("fixed", {}).get(chain)
    if not designed:
        return "sequence=given"
    named = f" fixed={','.join(fixed)}" if fixed else ""
    if sequence.count("X") >= designed:
        return f"sequence=none{named}"
    return f"sequence=partly_designed{named}" if fixed else "sequence=designed"
