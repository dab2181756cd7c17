"""Design proteins with a trained model.

    python infer.py ckpt=PATH task=unconditional 'lengths=[60,80]' samples_per_length=2 steps=50 seed=1 out=DIR
    python infer.py ckpt=PATH task=forward_folding input=FILE_OR_DIR_OR_FASTA out=DIR
    python infer.py ckpt=PATH task=inverse_folding input=FILE_OR_DIR out=DIR
    python infer.py ckpt=PATH task=partial input=FILE 'fix=[A10-35,B101-120]' what=both out=DIR

Writes DIR/structures/ID.pdb and .cif, DIR/sequences.fasta and DIR/manifest.json. The same command again verifies what
is there and makes what is missing, damaged or failed. recipes/infer.yaml and recipes/task/ say what the keys are.

Exit status: 0 if every design was made, 1 if some failed, 2 on bad input, 128 + its number after a signal.
"""

from app import environment
from app.config.entry import run


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    settings = environment.of_command_line(arguments)
    environment.prepare(settings)
    from app.cli.infer import infer  # imports torch

    return infer(arguments, settings)


if __name__ == "__main__":
    run(main)
