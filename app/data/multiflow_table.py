"""Which entries of Multiflow's metadata are used: filters, clusters, redesigned sequences, the synthetic set."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from app.chem.residues import AATYPES
from app.data.cluster_file import joined, read_clusters
from app.data.multiflow_settings import AUTO, DEFAULT_FILES, MultiflowFilter, MultiflowSettings
from app.errors import UserError

_ROG_SLACK = 0.1  # nanometre
_ROG_DEGREE = 4


class Table:
    """The entries in use, and why the others are not.

    rows: name, file (path), length, sequence ("" where the file's own holds), synthetic (bool); cluster (0, 1, ...), of
    which an epoch draws one entry, and joint, which must not be parted. dropped: (name, reason) of every other entry of
    the metadata.
    """

    def __init__(self, rows: pd.DataFrame):
        self.rows = rows
        self.dropped: list[tuple[str, str]] = []
        self.is_clustered = False  # whether clusters were given, of each kind of entries
        self.is_linked = True  # whether a real and a synthetic entry can be of one cluster

    def keep(self, mask: pd.Series, reason: str) -> None:
        self.dropped += [(name, reason) for name in self.rows.pdb_name[~mask]]
        self.rows = self.rows[mask]


def load_table(settings: MultiflowSettings) -> Table:
    """Read the CSV and cluster files. Raises UserError naming the file or column that is missing or unreadable."""
    folder = settings.path
    files = {key: _located(folder, key, getattr(settings, key)) for key in DEFAULT_FILES}
    if files["metadata"] is None:
        raise UserError(f"{folder}: holds no metadata.csv; set data.path to the folder of the data set")
    table = Table(_read_metadata(folder, files["metadata"]))
    _filter(table, settings.filter)
    if files["redesigned"] is not None:
        _redesign(table, files["redesigned"], settings)
    paths = files["clusters"], files["synthetic_clusters"]
    real, made, lines = _read_both(*paths)
    _cluster(table, real, made, paths)
    if files["synthetic_metadata"] is not None:
        synthetic = Table(_read_metadata(folder, files["synthetic_metadata"]).assign(synthetic=True))
        _filter_length(synthetic, settings.filter)
        _cluster(synthetic, made, real, paths)
        own = (set().union(*rows.lines) for rows in (table.rows, synthetic.rows))
        of_real, of_made = ({line < lines[0] for line in those} for those in own)
        table.is_linked = bool(of_real & of_made)
        table.is_clustered &= synthetic.is_clustered
        table.dropped += synthetic.dropped
        table.rows = pd.concat([table.rows, synthetic.rows], ignore_index=True)
    _join(table, sum(lines))
    return table


def rog_cutoff(length: pd.Series, rog: pd.Series, quantile: float) -> np.ndarray:
    """The radius of gyration (nm) below which a chain counts as compact for its length: [rows].

    As Multiflow: the quantile of the radii at each length that occurs, a polynomial of degree 4 through these by least
    squares, and 0.1 nm on top. (Multiflow looks the polynomial up at length - 1; here it is taken at the length. With
    fewer than five lengths the degree is lower.)
    """
    quantiles = rog.groupby(length).quantile(quantile).dropna()
    if quantiles.empty:
        return np.full(len(length), np.nan)
    degree = min(_ROG_DEGREE, len(quantiles) - 1)
    fitted = np.polynomial.Polynomial.fit(quantiles.index.to_numpy(float), quantiles.to_numpy(float), degree)
    return fitted(length.to_numpy(float)) + _ROG_SLACK


def _located(folder: Path, key: str, name: str | None) -> Path | None:
    if name is None:
        return None
    candidates = [folder / candidate for candidate in (DEFAULT_FILES[key] if name == AUTO else (name,))]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None and name != AUTO:
        raise UserError(f"{candidates[0]}: no such file; mend data.{key} or data.path")
    return found


def _read_csv(path: Path, columns: tuple[str, ...], text: tuple[str, ...]) -> pd.DataFrame:
    """A CSV; `text` columns stay as written (1E10 is a PDB entry, no number)."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str))
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable CSV file ({str(error).splitlines()[0]})") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {', '.join(missing)}")
    return table.dropna(subset=list(text)).reset_index(drop=True)


def _read_metadata(folder: Path, path: Path) -> pd.DataFrame:
    text = ("pdb_name", "processed_path")
    table = _read_csv(path, (*text, "modeled_seq_len"), text)
    table["modeled_seq_len"] = pd.to_numeric(table.modeled_seq_len, errors="coerce").fillna(0).astype(int)
    if table.empty:
        raise UserError(f"{path}: holds no row with a pdb_name and a processed_path")
    # Releases write the paths relative to the data set's folder or to that of the metadata: the first row tells.
    base = next((base for base in (folder, path.parent) if (base / table.processed_path.iloc[0]).is_file()), folder)
    files = [os.path.join(base, processed) for processed in table.processed_path]
    return table.assign(file=files, length=table.modeled_seq_len, sequence="", synthetic=False)


def _column(table: Table, name: str) -> pd.Series:
    if name not in table.rows.columns:
        raise UserError(f"data.filter: the metadata lack the column {name}; switch its filter off with null")
    return table.rows[name]


def _filter_length(table: Table, limits: MultiflowFilter) -> None:
    table.keep(table.rows.length >= limits.min_num_res, f"shorter than {limits.min_num_res} residues")
    table.keep(table.rows.length <= limits.max_num_res, f"longer than {limits.max_num_res} residues")


def _filter(table: Table, limits: MultiflowFilter) -> None:
    if limits.oligomeric is not None:
        allowed = _column(table, "oligomeric_detail").isin(limits.oligomeric)
        table.keep(allowed, f"oligomeric_detail is not {' or '.join(limits.oligomeric)}")
    if limits.num_chains is not None:
        allowed = _column(table, "num_chains").isin(limits.num_chains)
        table.keep(allowed, f"num_chains is not {' or '.join(map(str, limits.num_chains))}")
    _filter_length(table, limits)
    if limits.max_coil_percent is not None:
        allowed = _column(table, "coil_percent") <= limits.max_coil_percent
        table.keep(allowed, f"coil_percent above {limits.max_coil_percent}")
    if limits.rog_quantile is not None:  # last, for it is fitted to what is left
        rog = _column(table, "radius_gyration")
        cutoff = rog_cutoff(table.rows.length, rog, limits.rog_quantile)
        table.keep(rog < cutoff, f"radius of gyration above the {limits.rog_quantile} quantile for its length")


def _redesign(table: Table, path: Path, settings: MultiflowSettings) -> None:
    """Give each entry its redesigned sequence, of several the one with the lowest rmsd."""
    redesigned = _read_csv(path, ("example", "best_seq", "best_rmsd"), text=("example", "best_seq"))
    good = redesigned[redesigned.best_rmsd < settings.redesigned_max_rmsd].sort_values("best_rmsd", ascending=False)
    best = dict(zip(good.example.str.upper(), good.best_seq, strict=True))
    table.rows = table.rows.assign(sequence=table.rows.pdb_name.str.upper().map(best).fillna(""))
    if settings.redesigned_only:
        reason = f"no redesigned sequence under {settings.redesigned_max_rmsd} angstrom"
        table.keep(table.rows.sequence != "", reason)
    fits = (table.rows.sequence == "") | (table.rows.sequence.str.len() == table.rows.length)
    table.keep(fits, "its redesigned sequence has another length")
    letters = table.rows.sequence.map(lambda sequence: set(sequence) <= set(AATYPES)).astype(bool)
    table.keep(letters, "its redesigned sequence has letters beside the twenty residues")


def _read_both(real: Path | None, synthetic: Path | None) -> tuple[dict | None, dict | None, tuple[int, int]]:
    """Of the cluster files of real and of synthetic entries, None for one that is not there: each entry's lines, those
    of the second counted on from the first's; and how many lines each has."""
    first, second = (None if path is None else read_clusters(path) for path in (real, synthetic))
    lines = tuple(1 + max((max(own) for own in (each or {}).values()), default=-1) for each in (first, second))
    if second is not None:
        second = {name: [lines[0] + line for line in own] for name, own in second.items()}
    return first, second, lines


def _cluster(table: Table, own: dict | None, other: dict | None, paths: Iterable[Path | None]) -> None:
    """Add the column `lines`: an entry's clusters in the file of its kind, and in that of the other kind, which may
    know it as well, as where both kinds were clustered together. Without any of its kind, no entry has one."""
    names = table.rows.pdb_name.str.upper()
    table.rows = table.rows.assign(lines=[(own or {}).get(name, []) + (other or {}).get(name, []) for name in names])
    table.is_clustered = own is not None or bool(table.rows.lines.map(bool).any())
    if table.is_clustered:
        files = " and ".join(path.name for path in paths if path is not None)
        table.keep(table.rows.lines.map(bool).astype(bool), f"in no cluster of {files}")


def _join(table: Table, lines: int) -> None:
    """Add the columns `cluster`, an entry's first, and `joint`, into which all clusters of an entry are joined, and
    those of entries that were given the same sequence. An entry without a cluster is its own. lines: of all files."""
    rows = table.rows
    own = [known or [lines + place] for place, known in enumerate(rows.lines)]
    sequences = {sequence: lines + len(rows) + number for number, sequence in enumerate(rows.sequence.unique())}
    same = [[sequences[sequence]] if sequence else [] for sequence in rows.sequence]
    joint = joined([one + other for one, other in zip(own, same, strict=True)])
    table.rows = rows.assign(cluster=[known[0] for known in own], joint=joint).drop(columns="lines")
