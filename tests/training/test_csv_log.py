import csv

import pytest

from app.errors import UserError
from app.training.csv_log import CsvLog


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_lines_are_in_the_file_at_once_in_the_columns_given(tmp_path):
    path = tmp_path / "metrics.csv"
    log = CsvLog(path, ("loss", "lr"))
    assert not path.exists()
    log.log_metrics({"lr": 1e-4, "loss": 1.23456789}, step=1)
    assert path.read_text() == "step,loss,lr\n1,1.23457,0.0001\n"
    log.log_metrics({"loss": 2}, step=2)
    assert path.read_text().splitlines()[-1] == "2,2,"


def test_it_is_continued_and_columns_may_be_added(tmp_path):
    path = tmp_path / "metrics.csv"
    CsvLog(path, ("loss",)).log_metrics({"loss": 1.0}, step=1)
    log = CsvLog(path, ("lr", "loss"))
    log.log_metrics({"loss": 0.5, "lr": 0.1}, step=2)
    log.log_metrics({"loss": 0.25, "speed": 3}, step=3)
    assert read(path) == [
        {"step": "1", "loss": "1", "lr": "", "speed": ""},
        {"step": "2", "loss": "0.5", "lr": "0.1", "speed": ""},
        {"step": "3", "loss": "0.25", "lr": "", "speed": "3"},
    ]


def test_later_lines_and_one_cut_off_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    log = CsvLog(path, ("loss", "lr"))
    for step in (10, 20, 30):
        log.log_metrics({"loss": step, "lr": 1}, step=step)
    path.write_text(path.read_text() + "5,1")
    CsvLog(path, ("loss", "lr")).drop_after(20)
    assert path.read_text() == "step,loss,lr\n10,10,1\n20,20,1\n"
    path.write_text("step,lo")  # a header cut off
    CsvLog(path, ("loss",)).drop_after(20)
    assert path.read_text() == "step,loss\n"
    CsvLog(tmp_path / "none.csv").drop_after(3)
    assert not (tmp_path / "none.csv").exists()


def test_later_lines_of_one_kind_are_dropped(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv", ("loss", "validation_loss"))
    for step in (10, 20):
        log.log_metrics({"loss": step}, step=step)
        log.log_metrics({"validation_loss": step}, step=step)
    log.drop_after(10, having="loss")
    assert [(row["step"], row["loss"]) for row in read(log.path)] == [("10", "10"), ("10", ""), ("20", "")]
    log.drop_after(0, having="validation_loss")
    log.drop_after(0, having="other")
    assert [(row["step"], row["loss"]) for row in read(log.path)] == [("10", "10")]


def test_a_folder_in_its_place_is_an_error(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(UserError, match=r"metrics\.csv: cannot be written"):
        CsvLog(tmp_path / "metrics.csv").log_metrics({"loss": 1.0}, step=1)
