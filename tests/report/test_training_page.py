"""The report of a training run's folder."""

import json

import pytest
import yaml

from app.report import write


@pytest.fixture
def folder(tmp_path):
    lines = ["step,train_loss,trans_loss_t0.00-0.25,validation_loss,lr,gradient_norm,memory_mb,extra"]
    lines += [f"{step},{10 / step},{1 / step},,1e-4,{step}.0,700,nan" for step in range(1, 9)]
    lines += ["8,,,2.5,,,,", "9,1.0"]  # a validation's line, and one that is being written
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    summary = {"steps": 8, "epochs": 1, "residues_seen": 12345, "skipped_oom": 2, "seconds": 3725.0}
    summary |= {"best": {"metric": "validation_loss", "value": 2.5, "step": 8}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    recipe = {"name": "tiny", "data": {"kind": "demo", "path": "<b>"}, "optimizer": {"lr": 1e-4}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "machine.yaml").write_text("device: cpu\nversions: {torch: 2.13.0}\n")
    return tmp_path


def test_what_a_run_says_is_drawn(folder):
    text = write(folder).read_text()
    for part in ("12,345", "1 h 02 min", "best validation loss", "recipe tiny", "data demo", "on cpu", "optimizer.lr"):
        assert part in text
    for title in ("loss", "trans loss by time", "validation", "learning rate", "gradient norm", "memory, MB"):
        assert f"<h3>{title}</h3>" in text
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert "<script" not in text and "script-src 'none'" in text.replace("&#39;", "'")


@pytest.mark.parametrize("lacking", ["summary.json", "recipe.yaml", "machine.yaml"])
def test_what_is_missing_or_damaged_is_named(folder, lacking):
    (folder / lacking).write_text("{[")
    assert f"{lacking} is damaged" in write(folder).read_text()
    (folder / lacking).unlink()
    assert f"no {lacking}" in write(folder).read_text()


def test_a_run_that_has_logged_nothing_yet(folder):
    (folder / "metrics.csv").unlink()
    assert "no numbers yet" in write(folder).read_text()


def test_recipes_are_data(folder):
    (folder / "recipe.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    assert "recipe.yaml is damaged" in write(folder).read_text()
