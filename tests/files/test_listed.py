"""Folders that may not be looked into, refused by whoever is told to."""

import os

import pytest

from app.errors import UserError
from app.evaluation.found import find_designs
from app.files.listed import may_be_listed, refuse_unlisted
from app.report import write
from app.sampling.given import files_of
from app.sampling.manifest import check_folder


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (refuse_unlisted, "{}: may not be listed: mend"),
        (find_designs, "{}: may not be listed: mend"),
        (write, "{}: may not be listed: mend"),
        (files_of, "input={}: may not be listed: mend"),
        (check_folder, "out={}: may not be listed: mend"),
    ],
)
def test_a_folder_that_may_not_be_listed_is_refused_by_all(tmp_path, monkeypatch, look, told):
    refuse_unlisted(tmp_path)
    # as for a user who may not, which root may
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert not may_be_listed(tmp_path)
    with pytest.raises(UserError) as caught:
        look(tmp_path)
    assert str(caught.value).startswith(told.format(tmp_path))
