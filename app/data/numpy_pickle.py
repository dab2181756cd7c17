"""Reads pickles that hold numpy arrays and nothing else; no object that a pickle names is ever created.

A pickle is a program: it may name any function and have it called. Here every name it may use stands for an inert
class of this module, which only notes its arguments; the arrays are made afterwards, by us, from plain bytes. numpy's
own constructors are not used either: a crafted dtype makes them take raw bytes for object pointers.
"""

import io
import pickle
import re
from pathlib import Path

import numpy as np

from app.errors import UserError

_DTYPE = re.compile(r"[biufSU]\d+|\?")  # plain numbers, booleans and strings: no objects, no records


class _Refused(Exception):
    """The pickle asks for something that is not a numpy array; the message says what."""


class _DType:
    """Stands for `numpy.dtype`."""

    def __init__(self, spec, align=False, copy=True):
        if not (isinstance(spec, str) and _DTYPE.fullmatch(spec)):
            raise _Refused(f"an array of dtype {spec!r}")
        self.numpy = np.dtype(spec)

    def __setstate__(self, state):
        _version, byte_order, subarray, names, fields = state[:5]
        if byte_order not in ("<", ">", "|", "=") or any(part is not None for part in (subarray, names, fields)):
            raise _Refused("a structured dtype")
        self.numpy = self.numpy.newbyteorder(byte_order)


class _Array:
    """Stands for `numpy.ndarray`: an array whose contents come with its state."""

    value = None

    def __setstate__(self, state):
        _version, shape, dtype, is_fortran, raw = state
        self.value = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C")


class _Ready(_Array):
    """An array or scalar that is complete when it is made."""

    def __init__(self, value):
        self.value = value


def _from_bytes(raw, dtype, shape, order) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes | bytearray):
        raise _Refused("an array of objects")
    return np.frombuffer(bytes(raw), dtype.numpy).reshape(shape, order=order).copy()


def _reconstruct(_subtype, _shape, _typecode):
    return _Array()


def _scalar(dtype, raw):
    return _Ready(_from_bytes(raw, dtype, (), "C")[()])


def _frombuffer(raw, dtype, shape, order):
    return _Ready(_from_bytes(raw, dtype, shape, order))


def _encode(text, encoding="latin1"):
    """Stands for `_codecs.encode`, which is how pickle protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the codec {encoding!r}")
    return text.encode("latin-1")


# numpy 2 renamed numpy.core to numpy._core; pickles of either are read.
_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        stand_in = _ALLOWED[module, name]
        return lambda *args: stand_in(*args)  # a fresh one: a pickle may set attributes of what it is given

    def persistent_load(self, pid):
        raise _Refused("a persistent object")


def load_numpy_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled dict, by name. Numbers, strings and None beside them come as they are.

    Raises UserError naming the file: it is missing or truncated, is no such dict, or names anything but numpy's arrays
    (the refused name is given; nothing is executed).
    """
    path = Path(path)
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check data.path") from error
    except _Refused as refused:
        raise UserError(f"{path}: refused, it holds {refused}; only pickles of plain numpy arrays are read") from None
    except Exception as error:  # a broken pickle may raise nearly anything
        raise UserError(f"{path}: not a readable pickle, perhaps cut short; make or download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no dict of arrays; expected one of Multiflow's processed chains")
    return {key: _plain(path, key, value) for key, value in content.items()}


def _plain(path: Path, key, value):
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(key, str) and (value is None or isinstance(value, bool | int | float | str)):
        return value
    raise UserError(f"{path}: entry {key!r} is neither an array nor a number; expected a dict of numpy arrays")
