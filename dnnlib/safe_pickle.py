"""Pickles that hold only data: NumPy arrays of numbers, plain containers, and classes that the caller names.

An ordinary pickle is a program. It may import and call anything, and a short one can allocate any amount of memory.
This module knows only the opcodes that files of arrays need. It looks up every global in a short table, most entries
of which are restricted replacements of the real functions, and refuses all others before anything is called. Time and
memory stay within a small multiple of the size of the file.
"""

import itertools
import os
import pickle
import pickletools
import re
import struct

import numpy as np

from .util import UserError, open_atomic, printable, words_of

_CHUNK = 1 << 20  # Bytes.
_MAX_OPCODES = 100_000  # An array takes about 30. An opcode of one byte can create an object of about 100 bytes.
_MAX_DEPTH = 50  # Nesting of containers; the settings of a run have a depth of three.
_MAX_COPIES = 4  # Copies of each byte of the file; up to protocol 4, the bytes of an array are copied twice.

# The opcodes of files of arrays in any protocol. Other ways to import or call, and sets, are left out.
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ""".split()  # noqa: SIM905


def load(path, classes=None):
    """Read a pickle of any protocol, including those of Python 2, whose byte strings become str (Latin-1).

    Args:
        classes: Further globals to admit, {(module, qualified name): class}. Instances are created without arguments.
            Their __setstate__ gets untrusted data; classes without __setstate__ have no state.

    Raises:
        UserError: The file asks for anything else, claims more than it holds, has keys of dictionaries that are not
            text, or is not a pickle, truncated or damaged.
    """
    with open(path, "rb") as f:
        try:
            unpickler = _Unpickler(f, path, classes or {})
            loaded = unpickler.load()
            unpickler.check_tree(loaded)
            return loaded
        except (UserError, OSError):
            raise
        except MemoryError:
            raise UserError(f"{path}: does not fit into memory, or is damaged") from None
        except Exception as error:  # A damaged pickle may raise any exception.
            raise UserError(f"{path}: not a pickle, truncated or damaged ({words_of(error)})") from None


def dump(path, obj, protocol=4):
    """Pickle `obj` to `path`, which appears when complete. Protocol 5 writes arrays without a copy in memory."""
    with open_atomic(path, "wb") as f:
        pickle.dump(obj, f, protocol=protocol)


class _Unpickler(pickle._Unpickler):
    """The interpreter of pickles in Python, which can count, check and refuse opcodes, unlike that in C."""

    def __init__(self, file, path, classes):
        self._size = os.fstat(file.fileno()).st_size
        super().__init__(_Bounded(file, self._size), encoding="latin1")
        self.memo = _Memo()
        self._path, self._classes = path, classes
        self._opcodes_left, self._copies_left = _MAX_OPCODES, _MAX_COPIES * self._size

    def refuse(self, what):
        """Raise UserError: a file of arrays never holds `what`."""
        raise UserError(f"{self._path}: refused: it contains {printable(what)}, which a file of arrays never holds")

    def count(self):
        """Count an opcode."""
        self._opcodes_left -= 1
        if self._opcodes_left < 0:
            self.refuse(f"more than {_MAX_OPCODES} opcodes")

    def check_tree(self, loaded):
        """Refuse objects that take forever to traverse or print: pairs of the same pair, nested many times."""
        level = [loaded]
        for _ in range(_MAX_DEPTH):
            children = itertools.chain.from_iterable(map(_children, level))
            level = list(itertools.islice(children, _MAX_OPCODES))
            if len(level) == _MAX_OPCODES:
                self.refuse("the same containers over and over")
            if not level:
                return
        self.refuse(f"more than {_MAX_DEPTH} containers in each other")

    def find_class(self, module, name):
        key = (module.replace("numpy.core.", "numpy._core.").replace("__builtin__", "builtins"), name)
        for table, entry in ((self._classes, (module, name)), (_ADMITTED, key)):
            if entry in table:
                return table[entry]
        self.refuse(f"{module[:200]}.{name}")

    def load_reduce(self):
        function, arguments = self.stack[-2:]
        admitted = any(function is one for one in _ADMITTED.values())
        if not admitted or type(arguments) is not tuple:
            self.refuse(f"a call of {_type_name(function)}")
        for argument in arguments:
            self._count_copy(argument)
        super().load_reduce()

    def load_newobj(self):
        cls, arguments = self.stack[-2:]
        admitted = any(cls is one for one in self._classes.values())
        if not admitted or type(arguments) is not tuple or arguments:
            self.refuse(f"an instance of {_type_name(cls)}")
        super().load_newobj()

    def load_build(self):
        """Refuse what the base class allows: dtypes with offsets out of bounds, and attributes of functions."""
        instance, state = self.stack[-2:]
        if isinstance(instance, np.dtype):
            plain = instance.__reduce__()[2]  # Only the byte order may differ.
            order, rest = (state[1], (state[0], *state[2:])) if type(state) is tuple else (None, None)
            if order not in ("<", ">", "=", "|") or rest != (plain[0], *plain[2:]):
                self.refuse("an array of a type that is not plain")
        elif isinstance(instance, np.ndarray):
            self._count_copy(state[-1])
        elif type(instance) not in self._classes.values() or not hasattr(type(instance), "__setstate__"):
            self.refuse(f"a state for {_type_name(instance)}")
        super().load_build()

    def _count_copy(self, data):
        """Count the bytes copied: a program of few bytes could copy the same data thousands of times."""
        if isinstance(data, (str, bytes, bytearray)):
            self._copies_left -= len(data)
            if self._copies_left < 0:
                self.refuse("the same bytes over and over")

    def load_append(self):
        self._list(self.stack[-2])
        super().load_append()

    def load_appends(self):
        self._list(self.metastack[-1][-1])
        super().load_appends()

    def _list(self, target):
        if type(target) is not list:
            self.refuse(f"a {_type_name(target)} to append to")

    def load_setitem(self):
        self._items(self.stack[-3], self.stack[-2:])
        super().load_setitem()

    def load_setitems(self):
        self._items(self.metastack[-1][-1], self.stack)
        super().load_setitems()

    def load_dict(self):
        self._items({}, self.stack)
        super().load_dict()

    def _items(self, target, items):
        """Refuse keys that are not text: they may collide or take forever to hash (nested tuples)."""
        if not isinstance(target, dict):
            self.refuse(f"items of {_type_name(target)}")
        for key in items[::2]:
            if type(key) is not str:
                self.refuse(f"a key of type {_type_name(key)}")

    def load_bytearray8(self):
        """Load bytes with one copy of them in memory, where the base class has three."""
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._size:
            raise EOFError("it ends early")
        array = bytearray(size)
        with memoryview(array) as view:
            for start in range(0, size, _CHUNK):
                view[start : start + _CHUNK] = self.read(min(_CHUNK, size - start))
        self.append(array)


def _step(opcode, inherited):
    """Return the entry of an opcode in the dispatch table: the method named like `inherited`, or a refusal."""

    def run(unpickler):
        unpickler.count()
        getattr(unpickler, inherited.__name__)()

    def refuse(unpickler):
        unpickler.refuse(f"the opcode {name}")

    name = pickletools.code2op[chr(opcode)].name
    return run if name in _OPCODES else refuse


class _Steps(dict):
    """Dispatch table {opcode: function}."""

    def __missing__(self, opcode):
        raise ValueError(f"{opcode:#04x} is no opcode")


_Unpickler.dispatch = _Steps({opcode: _step(opcode, method) for opcode, method in pickle._Unpickler.dispatch.items()})


def _children(x):
    """Return the elements of a container, or the attributes of an instance of an admitted class."""
    if isinstance(x, dict):
        return x.values()
    return x if isinstance(x, (list, tuple)) else getattr(x, "__dict__", {}).values()


class _Bounded:
    """A file that refuses to read more bytes than it has, before memory is allocated for them."""

    def __init__(self, file, size):
        self._file, self._size, self.readline = file, size, file.readline

    def read(self, size):
        data = self._file.read(size) if size <= self._size else b""
        if len(data) < size:
            raise EOFError("it ends early")
        return data


class _Memo(dict):
    """Memo {number: object} without large numbers, which a file could choose to collide."""

    def __setitem__(self, number, x):
        if number > _MAX_OPCODES:
            raise ValueError(f"more than {_MAX_OPCODES} objects")
        super().__setitem__(number, x)


_NDARRAY = object()  # Stands for the class numpy.ndarray, which is not given to the file.


def _reconstruct(subtype, shape, dtype):
    """Return the empty array whose state follows."""
    if subtype is not _NDARRAY:
        raise ValueError("not an array")
    return np.empty(0, np.int8)


def _dtype(name, align=False, copy=True):
    """Return a dtype of numbers. Objects run code, structures have offsets in memory, empty strings fit any shape."""
    if not re.fullmatch("[biufc][0-9]{1,2}", name):
        raise ValueError(f"arrays of type {name[:9]} are not admitted")
    return np.dtype(name, copy=True)  # A copy, because its byte order will be set.


def _frombuffer(buffer, dtype, shape, order, axis_order=None):
    if not isinstance(buffer, (bytes, bytearray)):  # The memory of another array might be freed.
        raise ValueError("an array of no bytes")
    array = np.frombuffer(buffer, dtype)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _scalar(dtype, data):
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype, count=1)[0]


def _encode(text, encoding):
    """Decode bytes from pickles of protocols without bytes, as Python 3 writes them."""
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
}


def _type_name(x):
    """Return the name of a class, or of the class of an object."""
    cls = x if isinstance(x, type) else type(x)
    return f"{cls.__module__}.{cls.__qualname__}"
