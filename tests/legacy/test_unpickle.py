"""Hostile and damaged checkpoints: one line that names the file, and nothing in it is run."""

import builtins
import collections
import io
import os
import pickle
import random
import warnings
import zipfile

import pytest
import torch
from omegaconf import OmegaConf

from app.errors import UserError
from app.legacy.unpickle import load_checkpoint

CANARY = "canary"


class Calls:
    """Pickles as a call of `function` with these arguments: what a hostile file does on being loaded."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def checkpoint(payload=None) -> dict:
    config = OmegaConf.create({"model": {"c": 4, "same": "${model.c}"}, "list": [1, "two", 3.5, None, True]})
    made = {
        "epoch": 3,
        "state_dict": collections.OrderedDict(weight=torch.arange(6.0).view(2, 3)),
        "optimizer_states": [{"state": {0: {"step": torch.tensor(6.0)}}, "param_groups": [{"betas": (0.9, 0.99)}]}],
        "hyper_parameters": {"cfg": config},
    }
    return made if payload is None else {**made, "callbacks": payload}


def refusal(path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError) as caught:
            load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that must not come to be, in the folder where code of the checkpoint would run."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / CANARY
    assert not (tmp_path / CANARY).exists()


def test_omegaconf_becomes_plain_data(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(checkpoint(), path)
    loaded = load_checkpoint(path)
    assert loaded["hyper_parameters"] == {
        "cfg": {"model": {"c": 4, "same": "${model.c}"}, "list": [1, "two", 3.5, None, True]}
    }
    assert type(loaded["hyper_parameters"]["cfg"]) is dict
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(6.0).view(2, 3))
    assert loaded["optimizer_states"][0]["param_groups"] == [{"betas": (0.9, 0.99)}]
    assert load_checkpoint(str(path))["epoch"] == 3


def test_structured_and_read_only_configs_become_plain_data(tmp_path):
    path = tmp_path / "a.ckpt"
    config = OmegaConf.create({"a": {"b": "???"}, "empty": {}, "none": None, "nothing": []})
    OmegaConf.set_readonly(config, True)
    torch.save({"hyper_parameters": {"cfg": config}}, path)
    assert load_checkpoint(path)["hyper_parameters"]["cfg"] == {
        "a": {"b": "???"}, "empty": {}, "none": None, "nothing": [],
    }  # fmt: skip


TOUCH = f"touch {CANARY}"
WRITE = f"open('{CANARY}', 'w').close()"
HOSTILE = {
    "os.system": Calls(os.system, TOUCH),
    "eval": Calls(eval, WRITE),
    "exec": Calls(exec, WRITE),
    "open": Calls(open, CANARY, "w"),
    "getattr": Calls(getattr, "", "system"),
    "import": Calls(__import__, "os"),
    "os.mkdir": Calls(os.mkdir, CANARY),
    "subprocess": Calls(__import__("subprocess").getoutput, TOUCH),
    "torch.load": Calls(torch.load, CANARY),
    "torch.save": Calls(torch.save, {}, CANARY),
    "torch.hub": Calls(torch.hub.load, "a/b", "c"),
    "torch.jit": Calls(torch.jit.load, CANARY),
    "pickle.loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, TOUCH))),
    "a class of ours": Calls(UserError, "x"),
    "partial": Calls(__import__("functools").partial, os.system),
    "operator": Calls(__import__("operator").methodcaller, "system", TOUCH),
    "an OmegaConf resolver": Calls(OmegaConf.create, "${oc.env:HOME}"),
    "numpy": Calls(__import__("numpy").load, CANARY),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_calls_are_refused_and_named(tmp_path, canary, name, zipped):
    path = tmp_path / "bad.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(checkpoint([{"deep": HOSTILE[name]}]), path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "refused, it names" in message
    assert "nothing was run" in message


def test_the_class_is_named(tmp_path, canary):
    path = tmp_path / "bad.ckpt"
    torch.save(checkpoint(Calls(os.system, TOUCH)), path)
    assert f"{os.system.__module__}.system" in refusal(path)
    torch.save(checkpoint(Calls(builtins.eval, WRITE)), path)
    assert "eval" in refusal(path)


def test_a_plain_pickle_is_not_executed(tmp_path, canary):
    for protocol in range(6):
        path = tmp_path / "plain.ckpt"
        path.write_bytes(pickle.dumps(checkpoint(Calls(os.system, TOUCH)), protocol=protocol))
        refusal(path)
    path.write_bytes(pickle.dumps(Calls(os.system, TOUCH)))
    refusal(path)


def test_a_pickle_within_a_checkpoint_stays_bytes(tmp_path, canary):
    path = tmp_path / "nested.ckpt"
    inner = io.BytesIO()
    torch.save({"x": Calls(os.system, TOUCH)}, inner)
    torch.save(checkpoint(bytearray(inner.getvalue())), path)
    assert load_checkpoint(path)["callbacks"] == inner.getvalue()


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def as_checkpoint(path, payload: bytes) -> None:
    """A zip in torch's layout around a pickle written by hand."""
    torch.save({"a": 1}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in records.items():
            archive.writestr(name, payload if name.endswith("data.pkl") else value)


CONFIG, INT, DEFAULT = b"comegaconf.dictconfig\nDictConfig\n", b"cbuiltins\nint\n", b"ccollections\ndefaultdict\n"
BY_HAND = {
    "an allowed class called with anything": pickled(CONFIG, b"(", text(TOUCH), b"tR"),
    "an allowed class with a hostile state": pickled(CONFIG, b")\x81", b"(", text("_content"), text(WRITE), b"d", b"b"),
    "a state that is no dict": pickled(CONFIG, b")\x81", text("x"), b"b"),
    "a state that overwrites methods": pickled(
        CONFIG, b")\x81}(", text("__class__"), CONFIG, text("__setstate__"), INT, b"ub"
    ),
    "a builtin with arguments it does not take": pickled(INT, b"(", text("x"), b"tR"),
    "a huge number": pickled(INT, b"(", text("9" * 5000), b"tR"),
    "a factory that is a function": pickled(DEFAULT, b"(", INT, b"tR"),
    "a build on a number": pickled(INT, b"(K\x05tR}", text("a"), b"K\x01sb"),
    "an item set on a class": pickled(CONFIG, text("a"), text("b"), b"s"),
    "a call of a string": pickled(text("os.system"), b"(", text(TOUCH), b"tR"),
    "a persistent id that is no storage": pickled(text("../../etc/passwd"), b"Q"),
    "an unknown opcode": pickled(b"\xff"),
    "an extension code": pickled(b"\x82\x01"),
    "INST": pickled(b"(", text(TOUCH), b"ios\nsystem\n"),
    "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93(" + text(TOUCH) + b"tR.",
    "a stack that runs empty": pickled(b"RRR"),
    "no stop": b"\x80\x02}",
    "nothing": b"",
    "a loop": pickled(b"]q\x00h\x00a"),
    "a loop of stand-ins": pickled(CONFIG, b")\x81q\x00}", text("_content"), b"h\x00sb"),
    "deep nesting": pickled(b"]" * 5000 + b"a" * 4999),
    "lists that hold the one before twice": pickled(
        b"](]q\x00", *(b"](h" + bytes([k]) + b"h" + bytes([k]) + b"eq" + bytes([k + 1]) for k in range(60)), b"e"
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_allowed_names_used_in_unexpected_ways_run_nothing(tmp_path, canary, name):
    """Either plain data come out, for which there is no harm in being odd, or the file is refused."""
    path = tmp_path / "odd.ckpt"
    for payload in (BY_HAND[name], pickled(b"}", text("x"), BY_HAND[name][2:-1], b"s")):
        as_checkpoint(path, payload)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaded = load_checkpoint(path)
            except UserError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)
            else:
                assert type(loaded) is dict


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "x.ckpt"
    assert "no such" in refusal(path)
    assert "is a folder" in refusal(tmp_path)
    for content in (b"", b"hello\nworld\n", b"\x00" * 1000, b"PK\x03\x04" + b"x" * 50, "größe".encode("utf-16")):
        path.write_bytes(content)
        refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    assert not _opens(path)  # torch's own records are missing
    for content in ([1, 2], torch.ones(3), "text", 5, None):
        torch.save(content, path)
        assert "not a checkpoint" in refusal(path)


def _opens(path) -> bool:
    try:
        return isinstance(load_checkpoint(path), dict)
    except UserError:
        return False


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "legacy"])
def whole(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "whole.ckpt"
    torch.save(checkpoint({"a": list(range(50))}), path, _use_new_zipfile_serialization=request.param)
    return path.read_bytes()


def test_truncated_files_are_refused_at_every_length(tmp_path, whole):
    path = tmp_path / "cut.ckpt"
    lengths = sorted({*range(0, 64), *range(64, len(whole) - 1, max(1, len(whole) // 150)), len(whole) - 1})
    for length in lengths:
        path.write_bytes(whole[:length])
        refusal(path)


def test_flipped_bits_give_plain_data_or_a_refusal(tmp_path, whole):
    path, source = tmp_path / "flipped.ckpt", random.Random(1)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(source.choice([1, 1, 3, 10])):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert isinstance(load_checkpoint(path), dict)
            except UserError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)


def test_flipped_bits_within_the_pickle(tmp_path):
    """The checksum of the zip would catch these; here it is right, so that the unpickler has to cope."""
    path, source = tmp_path / "flipped.ckpt", random.Random(2)
    torch.save(checkpoint({"a": list(range(20))}), path)
    with zipfile.ZipFile(path) as archive:
        good = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(source.choice([1, 2, 5])):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        as_checkpoint(path, bytes(damaged))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert isinstance(load_checkpoint(path), dict)
            except UserError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)


def test_allowing_is_undone_afterwards(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(checkpoint(), path)
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before
    torch.save(checkpoint(Calls(os.getcwd)), path)
    refusal(path)
    assert set(torch.serialization.get_safe_globals()) == before
