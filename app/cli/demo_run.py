"""The demo: train a tiny model on the embedded set, design with it, and say what it learnt."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import lightning
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.data.batching import collate
from app.data.demo_dataset import DemoDataset
from app.errors import UserError
from app.evaluation.chain import ca_ca_validity, sequence_recovery
from app.structure.atomic import replacing
from app.training.checkpoint import load_module
from app.training.module import CodesignModule

ROOT = Path(__file__).resolve().parents[2]
SAMPLING_STEPS = 40
BATCH = 16
SEED = 1
VALIDATE_EVERY = 200  # training steps

console = Console()


def run_demo(out: Path, steps: int) -> None:
    """Everything `python -m app demo` does, into the folder `out`. Raises UserError where that is in use."""
    if out.exists() and any(out.iterdir()):
        raise UserError(
            f"{out} holds an earlier demo: remove it, or give another folder with --out (make demo OUT=...)"
        )
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run_folder, designs = out / "training", out / "designs"
    checkpoint = run_folder / "checkpoints" / "last.ckpt"

    _run(
        *("train.py", "recipe=tiny", "data=demo", "trainer=cpu", f"trainer.max_steps={steps}"),
        *(f"trainer.validate_every={VALIDATE_EVERY}", f"out={run_folder}"),
    )
    trained = load_module(checkpoint)
    lightning.seed_everything(trained.recipe.seed, verbose=False)
    untrained = CodesignModule(trained.recipe).eval()
    held_out = DemoDataset("held_out")
    scores = {"trained": _scores(trained, held_out, "trained"), "untrained": _scores(untrained, held_out, "untrained")}
    _run(
        *("infer.py", f"ckpt={checkpoint}", "task=unconditional", "lengths=[60,80]", "samples_per_length=2"),
        *("sampler.token_temperature=1", f"steps={SAMPLING_STEPS}", f"seed={SEED}", "device=cpu", f"out={designs}"),
        "trajectories=true",
    )

    losses = _losses(run_folder / "metrics.csv")
    report = {
        "recipe": trained.recipe.name,
        "data": "demo (synthetic chains)",
        "parameters": sum(parameter.numel() for parameter in trained.parameters()),
        "training_steps": steps,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "held_out_chains": len(held_out),
        **scores,
        "seconds": round(time.monotonic() - began, 1),
        "files": {
            "checkpoint": str(checkpoint),
            "metrics": str(run_folder / "metrics.csv"),
            "designs": str(designs),
            "page": str(designs / "report.html"),
        },
    }
    with replacing(out / "demo.json") as aside:
        aside.write_text(json.dumps(report, indent=2) + "\n")
    _show(report, out)


def _run(script: str, *arguments: str) -> None:
    """One of the two entry points as a user would call it."""
    console.print(f"[bold]$ python {script} {' '.join(arguments)}[/bold]", soft_wrap=True, highlight=False)
    finished = subprocess.run([sys.executable, str(ROOT / script), *arguments], check=False)
    if finished.returncode:
        raise UserError(f"{script} ended with status {finished.returncode}: what it says above is the reason")


def _scores(module: CodesignModule, data: DemoDataset, name: str) -> dict[str, float]:
    """On the held-out chains: sequence recovery of inverse folding, CA-CA validity of forward folding; means."""
    recovery, validity = [], []
    order = data.lengths.argsort().tolist()
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    for indices in track(batches, description=f"held-out chains, {name}", console=console, transient=True):
        batch = collate([data[index] for index in indices])
        given = {"res_mask": batch.res_mask, "chain_idx": batch.chain_idx, "res_idx": batch.res_idx}
        options = {"steps": SAMPLING_STEPS, "seed": [SEED + index for index in indices], "keep_path": False, **given}
        sequence = module.sample(
            task="inverse_folding", trans_1=batch.trans_1, rotmats_1=batch.rotmats_1, **options
        ).final_aatypes
        recovery.append(sequence_recovery(sequence, batch.aatypes_1, batch.res_mask))
        folded = module.sample(task="forward_folding", aatypes_1=batch.aatypes_1, **options)
        validity.append(ca_ca_validity(folded.path_trans[:, -1], folded.peptide_bond))
    return {
        "inverse_folding_recovery": round(torch.cat(recovery).nanmean().item(), 4),
        "ca_ca_validity": round(torch.cat(validity).nanmean().item(), 4),
    }


def _losses(metrics: Path) -> list[float]:
    """The training losses in the log, in order."""
    with metrics.open() as file:
        return [round(float(row["train_loss"]), 4) for row in csv.DictReader(file) if row["train_loss"]]


def _show(report: dict, out: Path) -> None:
    table = Table(title=f"{report['recipe']}, {report['parameters']:,} parameters, {report['training_steps']} steps")
    for column in ("", "untrained", "trained"):
        table.add_column(column, justify="left" if not column else "right")
    for key, label in {
        "inverse_folding_recovery": "inverse folding: residues recovered",
        "ca_ca_validity": "forward folding: CA-CA bonds valid",
    }.items():
        table.add_row(
            f"{label} ({report['held_out_chains']} held-out chains)",
            *(f"{report[k][key]:.1%}" for k in ("untrained", "trained")),
        )
    table.add_row("training loss, first and last", f"{report['loss_first']:.2f}", f"{report['loss_last']:.2f}")
    console.print(table)
    console.print(f"{report['seconds']:.0f} seconds. What was written:", highlight=False)
    for label, path in {**report["files"], "report": str(out / "demo.json")}.items():
        console.print(f"  {label:<11}{path}", soft_wrap=True, highlight=False)
