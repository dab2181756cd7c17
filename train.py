"""Train a model.

    python train.py recipe=multiflow_legacy data=structures data.path=DIR trainer.max_steps=1000 out=DIR
    python train.py resume=DIR/checkpoints/last.ckpt trainer.max_steps=2000
    python train.py weights=FILE recipe=multiflow_legacy data=structures data.path=DIR out=DIR
    python train.py --multirun recipe=tiny optimizer.lr=1e-3,1e-4 trainer.max_steps=1000 out=DIR

Writes DIR/checkpoints/last.ckpt, DIR/metrics.csv, DIR/summary.json and what else tells of the run. Any key of
recipes/train.yaml and of the groups that it names can be set as key=value, any group chosen as group=option.
"""

from app import environment
from app.config.entry import run


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from app.config.compose import options

        groups = "\n".join(f"    {group}: {', '.join(names)}" for group, names in options().items())
        print(f"{__doc__}\nGroups and their options:\n{groups}")
        return 0
    if {"-m", "--multirun"} & set(arguments):
        from app.sweep.run import sweep  # imports torch, for itself alone: each job prepares its own environment

        return sweep(arguments)
    settings = environment.of_command_line(arguments)
    environment.prepare(settings)
    from app.training.run import train  # imports torch

    return train(arguments, settings)


if __name__ == "__main__":
    run(main)
