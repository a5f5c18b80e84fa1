"""NumPy files as image files: `.npy` and `.npz` arrays, of which every image is a page."""

import contextlib
import functools
import math
import os
import zipfile

import numpy as np

import dnnlib
from imaging import images
from imaging.pages import Kind, Page, Source

SUFFIXES = (".npy", ".npz")
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_LARGEST = 2 << 30  # Bytes of an .npz file's arrays, which are held in memory; those of an .npy file are not.
_SHAPES = "[H, W], [T, H, W] or [T, H, W, C] with 1 or 3 channels"


@contextlib.contextmanager
def readable(path):
    """Turn what NumPy raises in the block into a UserError."""
    with images.readable(path, also=(Exception,)):  # Damaged headers raise errors of many kinds.
        yield


def open_source(path, sample_range):
    """Return the Source of a file of arrays; None for a file of another kind.

    The images of several arrays in an .npz file follow each other. Nothing in a file is executed. Raises UserError for
    types and shapes that are not supported.
    """
    with open(path, "rb") as f:
        head = f.read(len(_NPY))
    with readable(path):
        if head == _NPY:
            arrays = {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        elif head[: len(_ZIP)] == _ZIP:
            status = os.stat(path)
            arrays = _read_npz(path, status.st_mtime_ns, status.st_size)
        else:
            return None
        stacks = [_to_stack(array, f"{path}: {name}: " if name else f"{path}: ") for name, array in arrays.items()]
        if not stacks or not all(stack.size for stack in stacks):
            raise dnnlib.UserError(f"{path}: has no images")
        images.check_pixels(*max((stack.shape[2:0:-1] for stack in stacks), key=math.prod))
    places = [(stack, index) for stack in stacks for index in range(len(stack))]

    def read(index):
        with readable(path):
            stack, place = places[index]
            return Page(_native(stack[place]), Kind(sample_range=sample_range))

    largest = max(stacks, key=lambda stack: stack[0].size)
    nbytes = largest[0].size * largest.dtype.itemsize
    modes = {1: {"uint8": "L", "uint16": "I;16"}, 3: {"uint8": "RGB", "uint16": "RGB;16"}}
    dtype = "float32" if stacks[0].dtype.kind == "f" else stacks[0].dtype.name
    return Source(len(places), largest.shape[1:3], nbytes, read, modes[largest.shape[3]].get(dtype, "F"), 1, dtype)


@functools.lru_cache(maxsize=1)  # The pages of a file are read one after another.
def _read_npz(path, *version):
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        if not names or not all(name.endswith(".npy") for name in names):
            raise dnnlib.UserError(f"{path}: not an .npz file of NumPy, nor an image")
        size = sum(info.file_size for info in archive.infolist())
        if size > _LARGEST:
            raise dnnlib.UserError(f"{path}: has {size} bytes of arrays; save it as .npy, which is read page by page")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _to_stack(array, where):
    """Return an array as [T, H, W, C]."""
    if array.dtype.kind not in "f" and array.dtype.name not in ("uint8", "uint16"):
        what = f"samples of type {array.dtype} are not supported; convert them to 8 or 16 bits or float32"
        raise images.Refused(f"{where}{what}")
    shape = array.shape
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise images.Refused(f"{where}an array {list(shape)} is not {_SHAPES}")
    return array[None, ..., None] if len(shape) == 2 else array[..., None] if len(shape) == 3 else array


def _native(samples):
    return np.array(samples, samples.dtype.newbyteorder("="))
