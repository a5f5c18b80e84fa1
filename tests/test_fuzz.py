"""Untrusted files: valid files are mutated and given to everything that reads files.

Whatever a file contains, its reader returns a value or raises a UserError of one line that names the file. No code in
the file is run, nothing is written, and time and memory are bounded. Every run has the same mutations; FUZZ=10000 makes
as many new ones for each kind of file:

    FUZZ=10000 python -m pytest tests/test_fuzz.py
"""

import contextlib
import faulthandler
import os
import resource
import struct
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds_of_files import HOSTILE, KINDS
from PIL import Image

import dnnlib
from imaging import images
from mri import volumes

EXAMPLES = int(os.environ.get("FUZZ", 150))
SECONDS = 10  # Limit per example on a slow and busy machine; most take milliseconds.
MEGABYTES = 100  # Limit of memory per example, besides a multiple of the file size.

NUMBERS = [0, 1, 2, 127, 128, 255, 256, 32767, 65535, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1]
PLACES = st.integers(0, 1 << 16)
MUTATION = st.one_of(
    st.tuples(st.just("flip"), PLACES, st.integers(1, 255)),
    st.tuples(st.just("number"), PLACES, st.sampled_from(NUMBERS), st.sampled_from("BHIQ"), st.sampled_from("<>")),
    st.tuples(st.just("delete"), PLACES, PLACES),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=9), st.sampled_from([1, 1, 1, 1000, 100_000])),
    st.tuples(st.just("repeat"), PLACES, PLACES, st.sampled_from([1, 2, 1000])),
    st.tuples(st.just("cut"), PLACES),
    st.tuples(st.just("splice"), PLACES, PLACES, PLACES, PLACES, st.integers(0, 99)),
)


def mutate(data, kind, place, *args, others):
    """Return `data` after one mutation. `others`: data to splice chunks from."""
    start = place % (len(data) + 1)
    before, after = data[:start], data[start:]
    if kind == "flip":
        return before + bytes(b ^ args[0] for b in after[:1]) + after[1:]
    if kind == "number":
        number, size, order = args
        field = struct.pack(f"{order}{size}", number % 256 ** struct.calcsize(size))
        return before + field + after[len(field) :]
    if kind == "delete":
        return before + after[args[0] % 100 :]
    if kind == "insert":
        return before + args[0] * args[1] + after
    if kind == "repeat":
        return before + after[: args[0] % 100] * args[1] + after
    if kind == "cut":
        return before
    length, other_start, other_length, which = args
    other = others[which % len(others)]
    other_start %= len(other)
    return before + other[other_start : other_start + other_length % 300] + after[length % 300 :]


@pytest.mark.filterwarnings("ignore")  # The commands ignore warnings, but pytest shows them.
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(tmp_path, monkeypatch, kind):
    make, seal, name, read = KINDS[kind]
    corpus = make(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)  # A hostile pickle would write here.
    monkeypatch.setattr(images, "MAX_PIXELS", 500_000)  # Bounds the memory of an image.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250_000)
    monkeypatch.setattr(volumes, "MAX_VOXELS", 1 << 20)
    read(str(write(folder / name, seal(corpus[0]) if seal else corpus[0])))

    @settings(
        max_examples=EXAMPLES,
        derandomize="FUZZ" not in os.environ,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(corpus) - 1), st.lists(MUTATION, min_size=1, max_size=5))
    def check(which, mutations):
        data = corpus[which]
        for mutation in mutations:
            data = mutate(data, *mutation, others=[*corpus, *HOSTILE])
        path = str(write(folder / name, seal(data) if seal else data))
        with bounded(os.path.getsize(path)):
            try:
                read(path)
            except dnnlib.UserError as error:
                assert str(error).startswith(path) and str(error).isprintable() and len(str(error)) < len(path) + 300
        assert os.listdir(folder) == [name]

    with limited_address_space():
        check()


def write(path, data):
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def bounded(size):
    """Limit the time and, on Linux, the memory of a block that reads a file of `size` bytes."""
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)  # Also ends a loop in C.
    before, started = reset_peak(), time.monotonic()
    yield
    faulthandler.cancel_dump_traceback_later()
    assert time.monotonic() - started < SECONDS
    if before:
        assert peak() - before < (MEGABYTES << 20) + 20 * size


def reset_peak():
    """Restart the measurement of `peak`. Returns the resident bytes, or None if the system cannot measure them."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as f:
        f.write("5")
        f.flush()
        return peak()


def peak():
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith("VmHWM"))


@contextlib.contextmanager
def limited_address_space(more=4 << 30):
    """Make allocations of gigabytes fail in the block, before they exhaust the memory of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError), open("/proc/self/statm") as f:
        resource.setrlimit(resource.RLIMIT_AS, (int(f.read().split()[0]) * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
