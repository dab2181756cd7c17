"""Pickles are read for their numpy arrays; whatever else they name is refused and not run."""

import io
import os
import pickle

import numpy as np
import pytest

from app.data.numpy_pickle import load_numpy_pickle
from app.errors import UserError

ARRAYS = {
    "positions": np.random.default_rng(0).normal(size=(5, 37, 3)),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">f4"),
    "mask": np.array([True, False]),
    "strings": np.array(["A", "BC"]),
    "sliced": np.arange(10)[::3],
    "scalar": np.float64(2.5),
    "no_dims": np.array(7),
    "plain": 3,
}


class Reduced:
    """Pickles as a call of `function(*args)`, then given `state`."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def written(tmp_path, content, protocol=2):
    path = tmp_path / "chain.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
def test_reads_arrays_of_every_protocol_and_numpy(tmp_path, protocol, core):
    class Renaming(pickle._Pickler):  # numpy 1 wrote its modules as numpy.core
        def save_global(self, obj, name=None):
            module = getattr(obj, "__module__", None)
            if not (module or "").startswith("numpy._core") or core == "numpy._core":
                return super().save_global(obj, name)
            self.write(pickle.GLOBAL + f"{module.replace('numpy._core', core)}\n{obj.__name__}\n".encode())
            self.memoize(obj)

    buffer = io.BytesIO()
    pickler = Renaming(buffer, protocol)
    pickler.dispatch = {**pickle._Pickler.dispatch, type(lambda: 0): Renaming.save_global}
    pickler.dump(ARRAYS)
    read = load_numpy_pickle(written(tmp_path, buffer.getvalue()))
    assert read.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        np.testing.assert_array_equal(read[key], value)
        assert np.asarray(read[key]).dtype == np.asarray(value).dtype
    assert read["positions"].flags.writeable


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda flag: Reduced(os.system, f"touch {flag}"), "system"),
        (lambda flag: Reduced(eval, f"open('{flag}', 'w')"), "eval"),
        (lambda flag: Reduced(exec, f"open('{flag}', 'w')"), "exec"),
        (lambda flag: Reduced(getattr, 1, "real"), "getattr"),
        (lambda flag: {"a": np.zeros(3), "b": Reduced(os.mkdir, str(flag))}, "mkdir"),
        (lambda flag: Reduced(np.ndarray.tofile, np.zeros(3), str(flag)), "refused"),
        (lambda flag: f"cnumpy\nload\n(V{flag}\ntR.", r"numpy\.load"),
        (lambda flag: f"cnumpy\nsave\n(V{flag}\nI1\ntR.", r"numpy\.save"),
        (lambda flag: f"cnumpy.f2py\ncompile\n(V{flag}\ntR.", r"numpy\.f2py\.compile"),
        (lambda flag: f"cnumpy._core.multiarray\nfromfile\n(V{flag}\ntR.", "fromfile"),
        (lambda flag: f"cnumpy.core.multiarray\n_reconstruct.__globals__\n(V{flag}\ntR.", "__globals__"),
        (lambda flag: f"c_codecs\ndecode\n(V{flag}\ntR.", r"_codecs\.decode"),
        (lambda flag: "c_codecs\nencode\n(Va\nVzlib\ntR.", "zlib"),
        (lambda flag: "Pperson\n.", "persistent"),
        (lambda flag: {"a": np.array([{"b": 1}, None], dtype=object)}, "dtype 'O8'"),
        (lambda flag: {"a": np.zeros(2, dtype=[("x", "f4")])}, "dtype"),
        (lambda flag: {"a": np.array("2020-01-01", dtype="M8[D]")}, "dtype"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_refuses_all_else_and_runs_nothing(tmp_path, make, named, protocol):
    flag = tmp_path / "flag"
    content = make(flag)
    path = written(tmp_path, content.encode() if isinstance(content, str) else content, protocol)
    with pytest.raises(UserError, match=named) as error:
        load_numpy_pickle(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not flag.exists()


def test_object_arrays_cannot_be_smuggled_in_as_bytes(tmp_path):
    """A dtype whose state clears its flags makes numpy take raw bytes for pointers to objects."""
    pointers = b"\x01" * 16
    for spec in ("O8", "O", "V8", "f8,O8", "i8(2)", "|O"):
        dtype = Reduced(np.dtype, spec, False, True, state=(3, "|", None, None, None, -1, -1, 0))
        array = Reduced(
            np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (2,), dtype, False, pointers)
        )
        with pytest.raises(UserError, match=r"chain\.pkl: refused"):
            load_numpy_pickle(written(tmp_path, {"a": array}, protocol=4))


def test_records_and_objects_in_states_are_refused(tmp_path):
    records = Reduced(np.dtype, "f8", False, True, state=(3, "<", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0))
    array = Reduced(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), records, False, b"8" * 8))
    listed = Reduced(
        np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("f8"), False, [{}])
    )
    for content in (array, listed):
        with pytest.raises(UserError, match="refused"):
            load_numpy_pickle(written(tmp_path, {"a": content}, protocol=4))


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """The BUILD opcode sets attributes of whatever is on the stack, functions and classes too."""
    for name in ("c_codecs\nencode\n", "cnumpy\ndtype\n", "cnumpy\nndarray\n", "cnumpy.core.multiarray\nscalar\n"):
        for attribute in ("__defaults__", "value", "__init__", "__setstate__"):
            raw = f"{name}(N(dV{attribute}\n(Vzlib\nVx\ntstb.".encode()
            with pytest.raises(UserError):
                load_numpy_pickle(written(tmp_path, raw))
    read = load_numpy_pickle(written(tmp_path, ARRAYS, protocol=2))
    np.testing.assert_array_equal(read["positions"], ARRAYS["positions"])
    assert read["scalar"] == 2.5


@pytest.mark.parametrize("kept", [0, 1, 10, 200, -1])
def test_truncated(tmp_path, kept):
    path = written(tmp_path, pickle.dumps(ARRAYS, protocol=2)[:kept])
    with pytest.raises(UserError, match=r"chain\.pkl"):
        load_numpy_pickle(path)


def test_garbage_never_raises_anything_else(tmp_path):
    random = np.random.default_rng(0)
    good = pickle.dumps(ARRAYS, protocol=2)
    for _ in range(200):
        broken = bytearray(good)
        for place in random.integers(0, len(good), 5):
            broken[place] = random.integers(256)
        try:
            load_numpy_pickle(written(tmp_path, bytes(broken)))
        except UserError as error:
            assert "chain.pkl" in str(error)
    for content in (b"<html>", b"\x00" * 50, pickle.dumps([1]), pickle.dumps({"a": [1]}), pickle.dumps({"a": {1}})):
        with pytest.raises(UserError, match=r"chain\.pkl"):
            load_numpy_pickle(written(tmp_path, content))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pkl: cannot be read"):
        load_numpy_pickle(tmp_path / "nothing.pkl")
