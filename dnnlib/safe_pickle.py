"""Pickles that hold data only: NumPy arrays and scalars, plain containers, and classes that the caller names.

An ordinary pickle is a program: it may import and call anything. Here every global a pickle asks for is looked up in a
short table, most of whose entries are narrow stand-ins for the real thing, and whatever is not in the table is refused
before anything is called.
"""

import collections
import pickle
import re
import struct
from typing import ClassVar

import numpy as np

from .util import UserError, open_atomic, printable

_CHUNK = 1 << 20  # Bytes.


def load(path, classes=None):
    """Reads a pickle of any protocol, Python 2's included (its byte strings become str by Latin-1).

    classes: further globals to admit, {(module, qualified name): class or function}. They are called with, and their
        __setstate__ is given, whatever the file says: they must take it as coming from a stranger.

    UserError naming the file if it asks for anything else, or is not a pickle, truncated or damaged.
    """
    with open(path, "rb") as f:
        try:
            return _Unpickler(f, path, classes or {}).load()
        except (UserError, OSError):
            raise
        except MemoryError:
            raise UserError(f"{path}: does not fit into memory, or is damaged") from None
        except Exception as error:  # A damaged pickle can fail in every way that the functions in the table can.
            raise UserError(f"{path}: not a pickle, truncated or damaged ({printable(error)})") from None


def dump(path, obj, protocol=4):
    """Pickles `obj` to `path`; it appears there when complete. Protocol 5 writes arrays without a copy in memory."""
    with open_atomic(path, "wb") as f:
        pickle.dump(obj, f, protocol=protocol)


class _Unpickler(pickle._Unpickler):
    """The interpreter of pickles in Python: unlike the one in C it lets `load_build` be checked.

    Unchecked, the BUILD opcode hands a dtype a state with which NumPy reads and writes memory out of bounds, or sets
    attributes of the functions in the table.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, path, classes):
        super().__init__(file, encoding="latin1")
        self._path = path
        self._classes = classes
        self._instances = tuple(c for c in classes.values() if isinstance(c, type)) + (np.ndarray,)

    def find_class(self, module, name):
        key = (module.replace("numpy.core.", "numpy._core.").replace("__builtin__", "builtins"), name)
        for table, entry in ((self._classes, (module, name)), (_ADMITTED, key)):
            if entry in table:
                return table[entry]
        self._refuse(f"{module}.{name}")

    def load_build(self):
        instance, state = self.stack[-2:]
        if isinstance(instance, np.dtype):
            plain = instance.__reduce__()[2]  # Nothing but the byte order may differ from what the type's name says.
            if state[1] not in ("<", ">", "=", "|") or (state[0], *state[2:]) != (plain[0], *plain[2:]):
                self._refuse("an array of a type that is not plain")
        elif not isinstance(instance, self._instances):
            self._refuse(f"a state for {type(instance).__module__}.{type(instance).__qualname__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self):
        """As inherited, but with one copy in memory of an array of gigabytes, not three."""
        (size,) = struct.unpack("<Q", self.read(8))
        array = bytearray(size)
        with memoryview(array) as view:
            for start in range(0, size, _CHUNK):
                view[start : start + _CHUNK] = self.read(min(_CHUNK, size - start))
        self.append(array)

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _refuse(self, what):
        raise UserError(f"{self._path}: refused: it contains {printable(what)}, which a file of arrays never holds")


_NDARRAY = object()  # Stands for the class numpy.ndarray, which itself is not handed out.


def _reconstruct(subtype, shape, dtype):
    """The empty array whose state is to follow."""
    if subtype is not _NDARRAY:
        raise ValueError("not an array")
    return np.empty(0, np.int8)


def _dtype(name, align=False, copy=True):
    """Only numbers, booleans and strings: objects run code, and structures tell NumPy offsets in memory."""
    if not (isinstance(name, str) and re.fullmatch("[biufcSU][0-9]+", name)):
        raise ValueError(f"arrays of type {name!r} are not admitted")
    return np.dtype(name, copy=True)  # Its byte order will be set: not on the dtype shared by the whole process.


def _frombuffer(buffer, dtype, shape, order, axis_order=None):
    if not isinstance(buffer, (bytes, bytearray)):  # Not another array, whose memory might be freed beneath this one.
        raise ValueError("an array of no bytes")
    array = np.frombuffer(buffer, dtype)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _scalar(dtype, data):
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype, count=1)[0]


def _encode(text, encoding):
    """How Python 3 writes bytes into pickles of protocols that have none."""
    if encoding != "latin1":
        raise ValueError("bytes in an odd encoding")
    return text.encode("latin1")


def _no_bytes():
    return b""


_ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("builtins", "complex"): complex,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
