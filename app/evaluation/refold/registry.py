"""The plug-ins there are, by name. Another one is a module of this package of its name, and a line here."""

from typing import NamedTuple


class Wanted(NamedTuple):
    """What a plug-in needs to be given."""

    metavar: str
    what: str


INVERSE_FOLDERS = {"protein_mpnn": Wanted("FILE", "ProteinMPNN's weights, such as v_48_020.pt")}
"""Models that give sequences for a backbone."""

FOLDERS = {"esmfold": Wanted("FOLDER", "ESMFold as the Hugging Face hub has it, a copy of facebook/esmfold_v1")}
"""Models that fold a sequence."""

PLUGINS = INVERSE_FOLDERS | FOLDERS


def option(name: str) -> str:
    """The command-line option that says where a plug-in's weights are."""
    return "--" + name.replace("_", "-")
