"""Files whose atoms are being read when something else happens."""

import signal

import pytest

from app.structure import parse


def test_ctrl_c_is_not_told_as_a_damaged_file(monkeypatch):
    """numpy makes an error of one that comes while it strips text."""

    def stripped(text, model):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise TypeError("result array type does not match underlying function") from None

    monkeypatch.setattr(parse, "_parse_pdb", stripped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            parse.parse(b"ATOM", "a.pdb")
    finally:
        signal.signal(signal.SIGINT, before)
