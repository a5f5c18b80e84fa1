"""Files from strangers: valid ones, mutated, given to everything that reads files.

Whatever is in a file, its reader returns a value or raises a UserError of one line that names the file; no code of the
file's is run and nothing written; time and memory are bounded. The same mutations in every run; with FUZZ=10000 that
many, new ones, for each kind of file:

    FUZZ=10000 python -m pytest tests/test_fuzz.py
"""

import contextlib
import faulthandler
import gzip
import io
import os
import pickle
import resource
import struct
import sys
import time
import zlib

import google_crc32c
import nibabel
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import dataset_mri
import dataset_tool_mri
import dnnlib
import images
import kspace
import tfrecords
from dnnlib import submission, tflib
from dnnlib.submission import submit
from image_files import read_float

EXAMPLES = int(os.environ.get("FUZZ", 150))
SECONDS = 10  # An example may take, on a slow and busy machine. Most take milliseconds.
MEGABYTES = 100  # It may take, besides a multiple of its size.

# ----------------------------------------------------------------------------------------------------------------------
# Mutations

NUMBERS = [
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    32767,
    65535,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**60,
    2**63 - 1,
    2**64 - 1,
]
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
    """`data` with one mutation of it. `others`: what to splice chunks of."""
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


# ----------------------------------------------------------------------------------------------------------------------
# Kinds of files: valid ones as bytes, hostile ones to splice into them, and what reads them


class Hostile:
    """Pickles as a call that would write a file."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


HOSTILE = [pickle.dumps(Hostile(), protocol) for protocol in range(6)]
ARRAYS = {"a/W": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b": np.float32(1), "c": np.arange(40, dtype=">f8")}


def snapshots(folder):
    class Network:
        def __getstate__(self):
            return {
                "version": 2,
                "name": "autoencoder",
                "static_kwargs": dnnlib.EasyDict(),
                "build_module_src": "import os\nos.mkdir('canary')\n",
                "build_func_name": "autoencoder",
                "variables": [(name, np.asarray(value)) for name, value in ARRAYS.items()],
            }

    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflib.network, "Network", Network)  # pickle looks the class up by its name.
        return [pickle.dumps(Network(), protocol) for protocol in (2, 3, 4, 5)]


def mri_networks(folder):
    return [pickle.dumps(ARRAYS, protocol) for protocol in range(6)]


def safetensors_snapshots(folder):
    fields = {"version": "2", "name": '"n"', "static_kwargs": '{"a": [1, {}]}', "build_func_name": '"autoencoder"'}
    arrays = {name: np.ascontiguousarray(value, "<f4") for name, value in ARRAYS.items()}
    return [safetensors.numpy.save(arrays, metadata) for metadata in (None, fields)]


def mri_pickles(folder):
    pixels = np.random.default_rng(0).integers(0, 256, [1, 256, 256], dtype=np.uint8)
    spectra = kspace.spectrum_of(images.to_float(pixels[0, :-1, :-1]))[None].astype(np.complex64)
    small = [pickle.dumps((pixels[:, :3, :3], spectra[:, :3, :3]), protocol) for protocol in (2, 4, 5)]
    return [pickle.dumps((pixels, spectra), 4), *small]


def run_settings(folder):
    """submit_config.pkl and .txt of a run."""
    config = dnnlib.SubmitConfig(run_func_name="train.train", run_func_kwargs={"adam": {"beta1": 0.9}, "seed": 1})
    config.run_dir = str(folder)
    submit._write_settings(config)
    pickled, text = ((folder / f"submit_config.{suffix}").read_bytes() for suffix in ("pkl", "txt"))
    return pickled, text


def example(height, width, scene=None):
    """A serialised record."""
    from dnnlib.tflib import tf

    pixels = np.arange(3 * height * width, dtype=np.uint8).reshape(3, height, width)
    return tfrecords._example(tf.train, pixels, scene).SerializeToString(deterministic=True)


def frame(payload):
    """A record of a TFRecords file, its checksums right."""

    def crc(data):
        return struct.pack("<I", tfrecords._masked_crc(google_crc32c.value(data)))

    length = struct.pack("<Q", len(payload))
    return length + crc(length) + payload + crc(payload)


def record_payloads(folder):
    return [example(2, 3), example(10, 20), example(1, 1), example(2, 3, scene=7)]


def record_files(folder):
    payloads = record_payloads(folder)
    return [b"".join(map(frame, payloads)), frame(payloads[1]), 2 * frame(payloads[3])]


def read_records(path):
    records = tfrecords.ImageRecords(path)
    records.check()
    records.scenes()
    for record in range(len(records)):
        pixels = records.read(record)
        assert pixels.shape == records.shape(record) and pixels.dtype == np.uint8


FORMATS = [  # Format, mode, options.
    *(("PNG", mode, {}) for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")),
    ("JPEG", "L", {}),
    (
        "JPEG",
        "RGB",
        {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\6\0\0\0\0"},
    ),
    ("JPEG", "CMYK", {}),
    *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F")),
    *(("TIFF", "RGB", {"compression": c}) for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    ("TIFF", "1", {"compression": "group4"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}),
    *((form, "RGB", {"save_all": True}) for form in ("PNG", "GIF", "WEBP", "TIFF")),  # Two frames.
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16")),
    *(("TGA", mode, {"compression": c}) for mode in ("L", "RGBA") for c in (None, "tga_rle")),
    ("JPEG2000", "RGB", {}),
]


def image_files(folder):
    pixels = np.random.default_rng(0).integers(0, 256, [12, 20, 3], dtype=np.uint8)
    files = []
    for form, mode, options in FORMATS:
        deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        image = deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)
        if options.get("save_all"):
            options = options | {"append_images": [Image.fromarray(pixels[::-1])]}
        buffer = io.BytesIO()
        with contextlib.suppress(KeyError):  # Of a Pillow built without that format.
            image.save(buffer, form, **options)
            files.append(buffer.getvalue())
    return files


def png_files(folder):
    return [data for data in image_files(folder) if data.startswith(b"\x89PNG")]


def with_checksums(data):
    """A mutated PNG with the checksums of its chunks set right, as far as there are chunks."""
    sealed, rest = data[:8], data[8:]
    while len(rest) >= 12:
        length = min(int.from_bytes(rest[:4], "big"), len(rest) - 12)
        kind_and_content, rest = rest[4 : 8 + length], rest[12 + length :]
        sealed += struct.pack(">I", length) + kind_and_content + struct.pack(">I", zlib.crc32(kind_and_content))
    return sealed + rest


def read_image(path):
    images.upright_size(path)
    for pixels, dtype in ((images.read_rgb(path), np.uint8), (read_float(path)[0], np.float32)):
        assert pixels.ndim == 3 and len(pixels) == 3 and pixels.dtype == dtype and np.isfinite(pixels).all()


def volumes(folder):
    files = []
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
            data = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(dtype)
            files.append(kind(data, np.diag([1.0, -2, 3, 1])).to_bytes())
    return files


def packed_volumes(folder):
    return [gzip.compress(data, mtime=0) for data in volumes(folder)]


def read_volume(path):
    for plane in (None, "coronal"):
        data, peak = dataset_tool_mri.read_volume(path, plane)
        assert data.ndim == 3 and np.isfinite(peak) and peak > 0
        dataset_tool_mri.centred(data[:, :, 0])


KINDS = {  # What is mutated, how that is made a file, the file's name, what reads it.
    "snapshot": (snapshots, None, "x.pickle", tflib.load_snapshot),
    "MRI network": (mri_networks, None, "x.pkl", tflib.load_snapshot),
    "safetensors": (safetensors_snapshots, None, "x.safetensors", tflib.load_snapshot),
    "MRI pickle": (mri_pickles, None, "x.pkl", dataset_mri.load),
    "settings": (lambda f: run_settings(f)[:1], None, "submit_config.pkl", submission.load_submit_config),
    "settings as text": (lambda f: run_settings(f)[1:], None, "submit_config.txt", submission.load_submit_config),
    "TFRecords": (record_files, None, "x.tfrecords", read_records),
    "TFRecords with right checksums": (record_payloads, frame, "x.tfrecords", read_records),
    "image": (image_files, None, "x.png", read_image),
    "PNG with right checksums": (png_files, with_checksums, "x.png", read_image),
    "volume": (volumes, None, "x.nii", read_volume),
    "gzipped volume": (packed_volumes, None, "x.nii.gz", read_volume),
    "volume, then gzipped": (volumes, gzip.compress, "x.nii.gz", read_volume),
}

# ----------------------------------------------------------------------------------------------------------------------
# What is to hold


@pytest.mark.filterwarnings("ignore")  # As the commands do, which pytest undoes.
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_named(tmp_path, monkeypatch, kind):
    make, seal, name, read = KINDS[kind]
    corpus = make(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)  # Where a canary would write.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250_000)  # As many are admitted, so much memory is taken.
    monkeypatch.setattr(dataset_tool_mri, "MAX_VOXELS", 1 << 20)
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
    """The time and, on Linux, the memory that a block may take for a file of `size` bytes."""
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)  # Also out of a loop in C.
    before, started = reset_peak(), time.monotonic()
    yield
    faulthandler.cancel_dump_traceback_later()
    assert time.monotonic() - started < SECONDS
    if before:
        assert peak() - before < (MEGABYTES << 20) + 20 * size


def reset_peak():
    """Resident bytes, from where on `peak` is measured; None where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as f:
        f.write("5")
        f.flush()
        return peak()


def peak():
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith("VmHWM"))


@contextlib.contextmanager
def limited_address_space(more=4 << 30):
    """What asks for gigabytes fails rather than takes the machine down."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError), open("/proc/self/statm") as f:
        resource.setrlimit(resource.RLIMIT_AS, (int(f.read().split()[0]) * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
