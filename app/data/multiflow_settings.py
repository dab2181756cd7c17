"""Settings of Multiflow's data set layout (recipes/data/multiflow.yaml)."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.data.split import ValidationSettings

AUTO = "auto"


class MultiflowFilter(BaseModel):
    """Which rows of the metadata are used; null switches a filter off. Multiflow's names and numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    oligomeric: tuple[str, ...] | None = ("monomeric",)  # oligomeric_detail is one of these
    num_chains: tuple[int, ...] | None = (1,)  # num_chains is one of these
    min_num_res: int = Field(60, ge=1)  # modeled_seq_len
    max_num_res: int = Field(384, ge=1)
    max_coil_percent: float | None = 0.5  # a share of 1, in spite of its name
    rog_quantile: float | None = Field(0.96, gt=0, le=1)  # radius of gyration, see `rog_cutoff`


class MultiflowSettings(BaseModel):
    """File names are relative to `path`. `auto` takes the file from where `DEFAULT_FILES` has it, if it is there; null
    goes without."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    metadata: str = AUTO
    clusters: str | None = AUTO
    redesigned: str | None = AUTO
    synthetic_metadata: str | None = AUTO
    synthetic_clusters: str | None = AUTO
    sample_by: Literal["chain", "cluster"] = "cluster"  # an epoch draws every entry, or one of each cluster
    validation: ValidationSettings = ValidationSettings()
    filter: MultiflowFilter = MultiflowFilter()
    redesigned_max_rmsd: float = Field(2.0, gt=0)  # angstrom; a redesigned sequence counts below this
    redesigned_only: bool = True  # leave out chains without one, as Multiflow does; false keeps their own sequence
    add_plddt_mask: bool = True  # keep residues of synthetic chains with pLDDT under 70 out of the losses
    shuffle_chains: bool = True  # number the chains of a complex at random in each epoch
    max_cache_size: int = Field(10_000, ge=0)  # examples each process keeps in memory, some 17 kB each


DEFAULT_FILES = {
    "metadata": ("metadata.csv", "metadata/pdb_metadata.csv"),
    "clusters": ("pdb.clusters", "metadata/pdb.clusters"),
    "redesigned": ("pdb_redesigned.csv", "metadata/pdb_redesigned.csv"),
    "synthetic_metadata": ("distillation_metadata.csv", "metadata/distillation_metadata.csv"),
    "synthetic_clusters": ("distillation.clusters", "metadata/distillation.clusters"),
}
"""Where `auto` looks, in this order."""
