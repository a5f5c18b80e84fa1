"""Pickles of arrays: round trips, hostile and damaged files."""

import os
import pickle
import struct
import time
import tracemalloc

import numpy as np
import pytest

from dnnlib import UserError, safe_pickle

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "view": np.arange(24).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1),
    "transposed": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(1, 0, 2),
    "big endian": np.arange(3, dtype=">i4"),
    "complex64": np.array([1 + 2j], np.complex64),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float16),
    "no axes": np.array(3.5),
    "large": np.arange(400_000, dtype=np.float64),
    "scalar": np.float32(2.5),
    "bool scalar": np.bool_(True),
}


def write(path, *opcodes, obj=None):
    path.write_bytes(b"".join(opcodes) if opcodes else pickle.dumps(obj))
    return str(path)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_in_containers_round_trip(tmp_path, protocol):
    other = [1, 2.5, None, True, "ä", b"\xff", b"", (1 << 80,), {"a": []}]
    path = str(tmp_path / "x.pkl")
    safe_pickle.dump(path, (ARRAYS, other, [ARRAYS["float32"]] * 2), protocol)
    arrays, others, twice = safe_pickle.load(path)
    assert others == other and twice[0] is twice[1]
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        assert type(array) is type(ARRAYS[name])
        assert array.dtype.newbyteorder("=") == ARRAYS[name].dtype.newbyteorder("=")  # NumPy changes it as well.
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_python_2_pickle(tmp_path):
    """Names and array contents are byte strings; the modules are those of NumPy 1."""
    raw = np.array([1.5, -2], np.float32).tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    array += b"(K\x01(K\x02tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
    array += b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"tb"
    path = write(tmp_path / "x.pkl", b"\x80\x02}U\x08conv0/W\xe9", array, b"s.")
    (name, value), *_ = safe_pickle.load(path).items()
    assert name == "conv0/Wé"
    np.testing.assert_array_equal(value, np.array([1.5, -2], np.float32))


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Bare(dict):
    """An admitted class without __setstate__ whose attributes are its items, like dnnlib.EasyDict."""

    __getattr__ = dict.__getitem__


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
DTYPE = b"cnumpy\ndtype\n(U\x02%s\x89\x88tR"
HOSTILE = {
    "system": (pickle.dumps(Calls(os.system, "echo > mark")), "posix.system|nt.system"),
    "eval": (pickle.dumps(Calls(eval, "open('mark', 'w')"), 0), "builtins.eval|__builtin__.eval"),
    "old instance": (b"(S'echo > mark'\nios\nsystem\n.", "opcode INST"),
    "beneath an array": (pickle.dumps({"w": np.array([Calls(os.mkdir, "mark")])}), "mkdir|dtype|type"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
    "line breaks": (b"\x80\x04\x8c\x02o\n\x8c\x07\x1b[31m\n\n\x93.", r"o\\n"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "persistent": (b"\x80\x02K\x01Q.", "opcode BINPERSID"),
    "other encoding": (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "not a pickle"),
    "objects": (DTYPE % b"O8" + b".", "not a pickle"),
    "structure": (DTYPE % b"V8" + b".", "not a pickle"),
    "offsets": (
        DTYPE % b"f4"
        + b"(K\x03U\x01<NU\x01a}U\x01a(cnumpy\ndtype\n(U\x02f4\x89\x88tRJ\xff\xff\xff\x7ftsK\x04K\x04K\x00tb.",
        "plain",
    ),
    "flags": (DTYPE % b"i8" + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb.", "plain"),
    "strings": (DTYPE % b"S4" + b".", "not a pickle"),
    "item size": (DTYPE % b"i4" + b"(K\x03U\x01|NNNJ\xff\xff\x00\x00K\x01K\x00tb.", "plain"),
    "array of another array": (
        b"cnumpy.core.numeric\n_frombuffer\n(cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        + DTYPE % b"u1"
        + b"(K\x00tU\x01CtR.",
        "not a pickle",
    ),
    "attributes of functions": (b"cnumpy\ndtype\n(N}U\x0c__defaults__)stb.", "a state for"),
    "attributes of instances": (b"cm\nBare\n)\x81}U\x04keysNsb.", "a state for"),
    "arguments": (b"cm\nBare\n}\x85\x81.", "an instance"),
    "arguments of a call": (b"cm\nBare\n}\x85R.", "a call"),
    "sets": (b"\x80\x04\x8f.", "opcode EMPTY_SET"),
    "sets by name": (pickle.dumps({1}, 2), "set"),
    "key": (b"})K\x00s.", "a key of type builtins.tuple"),
    "items of an array": (ARRAY + b"U\x01aK\x00s.", "items of numpy.ndarray"),
    "append to a class": (b"cm\nBare\n)\x81U\x06appendcm\nBare\nsK\x00a.", "test_safe_pickle.Bare to append"),
    "bare class": (b"cnumpy\nndarray\n(K\x04tR.", "not a pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickle(tmp_path, monkeypatch, case):
    content, words = HOSTILE[case]
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    before = safe_pickle._dtype.__defaults__
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        safe_pickle.load(str(path), {("m", "Bare"): Bare})
    assert os.listdir(tmp_path) == ["x.pkl"]
    assert safe_pickle._dtype.__defaults__ == before
    line = str(caught.value)
    assert line.startswith(str(path)) and line.isprintable() and len(line) < len(str(path)) + 250


TWICE = b"h\x00h\x00\x86q\x00"  # Object 0 of the pickle becomes a pair of itself.
TEXT = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\x00"
ENCODE = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x020"
SWAPPED = DTYPE % b"f4" + b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x010"
BOMBS = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 31) + b"x.",
    "writable bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 31) + b"x.",
    "number": b"\x80\x04\x8b" + struct.pack("<I", (1 << 31) - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 31) + b"N.",
    "too much for a machine": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"x.",
    "shape": ARRAY + b"(K\x01(J\x00\x00\x00\x10K\x04t" + DTYPE % b"f4" + b"\x89U\x04abcdtb.",
    "shape of a buffer": b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd"
    + DTYPE % b"u1"
    + b"(J\x00\x00\x00\x10tU\x01CtR.",
    "objects": b"(" + b"]\x94" * 3_000_000 + b"t.",
    "marks": b"(" * 3_000_000,
    "nesting": b"]" * 3_000_000 + b"a" * 3_000_000 + b".",
    "keys that take for ever to hash": b"}(K\x00K\x00\x86q\x000" + (TWICE + b"0") * 60 + b"h\x00K\x00u.",
    "pairs of pairs": b"K\x00q\x00" + TWICE * 200 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "numbers that hash alike": b"N" + b"".join(b"p%d\n" % (k * (2**61 - 1)) for k in range(90_000)) + b".",
    "copies of text": b"(" + TEXT + ENCODE + b"h\x01h\x00h\x02\x86R" * 10_000 + b"t.",
    "copies of arrays": TEXT + SWAPPED + b"(" + (ARRAY + b"(K\x01J\x90\xd0\x03\x00\x85h\x01\x89h\x00tb") * 1000 + b"t.",
}


@pytest.mark.parametrize("case", BOMBS)
def test_bomb(tmp_path, case):
    path = write(tmp_path / "x.pkl", BOMBS[case])
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(UserError, match=r"x\.pkl: "):
            safe_pickle.load(path)
        assert tracemalloc.get_traced_memory()[1] < (50 << 20) + 8 * len(BOMBS[case])
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("protocol", [4, 5])
def test_array_is_in_memory_once(tmp_path, protocol):
    path = str(tmp_path / "x.pkl")
    safe_pickle.dump(path, np.zeros(100 << 20, np.uint8), protocol)
    tracemalloc.start()
    try:
        array = safe_pickle.load(path)
        assert tracemalloc.get_traced_memory()[1] < 104 << 20
    finally:
        tracemalloc.stop()
    assert array.shape == (100 << 20,)


def test_nothing_runs_before_the_refusal(tmp_path):
    """The harmless array comes first, the hostile part last."""
    path = write(tmp_path / "x.pkl", obj=[np.zeros(3), Calls(os.mkdir, str(tmp_path / "made"))])
    with pytest.raises(UserError, match=r"refused: it contains .*mkdir, which a file of arrays never holds"):
        safe_pickle.load(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_files_are_named(tmp_path, protocol):
    whole = pickle.dumps({"weight": np.arange(100.0)}, protocol)
    for content in [b"", b"PNG, rather", b"\x80", *(whole[:n] for n in range(1, len(whole), 17))]:
        path = write(tmp_path / "x.pkl", content)
        with pytest.raises(UserError, match=r"x\.pkl: (not a pickle, truncated or damaged|refused)"):
            safe_pickle.load(path)


def test_flipped_bits(tmp_path):
    whole = pickle.dumps((np.arange(20.0), np.float32(1), {"a": [1, "b"]}), 2)
    rng = np.random.default_rng(0)
    path = tmp_path / "x.pkl"
    for _ in range(1000):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            safe_pickle.load(path)
        except UserError as error:
            assert str(error).startswith(str(path))


class Admitted:
    def __init__(self):
        self.weights = np.ones(2)

    def __setstate__(self, state):
        self.restored = state["weights"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_admitted_classes(tmp_path, protocol):
    path = str(tmp_path / "x.pkl")
    safe_pickle.dump(path, Admitted(), protocol)
    with pytest.raises(UserError, match="Admitted"):
        safe_pickle.load(path)
    loaded = safe_pickle.load(path, {(__name__, "Admitted"): Admitted})
    np.testing.assert_array_equal(loaded.restored, [1, 1])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        safe_pickle.load(str(tmp_path / "x.pkl"))


def test_unpicklable_object_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.pkl"
    safe_pickle.dump(str(path), [1])
    with pytest.raises((AttributeError, pickle.PicklingError)):
        safe_pickle.dump(str(path), [np.zeros(10**6), lambda: None])
    assert safe_pickle.load(str(path)) == [1] and os.listdir(tmp_path) == ["x.pkl"]
