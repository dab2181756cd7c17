"""The plug-ins there are, by name. Another one is a module of this package of its name, and a line here."""

INVERSE_FOLDERS = {"protein_mpnn": "ProteinMPNN's weights: a file such as v_48_020.pt."}
"""Models that give sequences for a backbone: name -> what to bring."""

FOLDERS = {"esmfold": "ESMFold: a folder as the Hugging Face hub has it, such as a copy of facebook/esmfold_v1."}
"""Models that fold a sequence: name -> what to bring."""

PLUGINS = INVERSE_FOLDERS | FOLDERS


def option(name: str) -> str:
    """The command-line option that says where a plug-in's weights are."""
    return "--" + name.replace("_", "-")
