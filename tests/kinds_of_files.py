"""Kinds of files for test_fuzz.py: valid files as bytes, hostile pickles to splice into them, and their readers."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import zlib

import nibabel
import numpy as np
import pytest
import safetensors.numpy
import tifffile
from conftest import example, record
from PIL import Image

import dataset_tool_mri
import dnnlib
from dnnlib import submission, tflib
from dnnlib.submission import settings
from imaging import images, rgb_files
from imaging.image_files import open_source
from mri import dataset_mri, kspace
from records import tfrecords


class Hostile:
    """Pickles as a call that makes a folder."""

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
    spectra = kspace.fft2c(images.to_float(pixels[0, :-1, :-1]))[None].astype(np.complex64)
    small = [pickle.dumps((pixels[:, :3, :3], spectra[:, :3, :3]), protocol) for protocol in (2, 4, 5)]
    return [pickle.dumps((pixels, spectra), 4), *small]


def run_settings(folder):
    """Return submit_config.txt of a run."""
    config = dnnlib.SubmitConfig(run_func_name="train.train", run_func_kwargs={"adam": {"beta1": 0.9}, "seed": 1})
    config.run_dir = str(folder)
    settings.write_settings(config)
    return [(folder / "submit_config.txt").read_bytes()]


def image_example(height, width, **features):
    pixels = np.arange(3 * height * width, dtype=np.uint8).tobytes()
    return example(shape=[3, height, width], data=pixels, **features)


def record_payloads(folder):
    deep = example(shape=[1, 4, 5], data=bytes(range(40)), type=b"uint16", range=[10.0, 4095.0])
    return [image_example(2, 3), image_example(10, 20), image_example(1, 1), image_example(2, 3, scene=[7]), deep]


def record_files(folder):
    payloads = record_payloads(folder)
    return [b"".join(map(record, payloads[:4])), record(payloads[1]), 2 * record(payloads[3]), record(payloads[4])]


def read_records(path):
    records = tfrecords.ImageRecords(path)
    records.check()
    records.scenes()
    for k in range(len(records)):
        pixels = records.read(k)
        assert pixels.shape == records.shape(k) and pixels.dtype == records.scale().dtype


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
        with contextlib.suppress(KeyError):  # Some builds of Pillow lack a format.
            image.save(buffer, form, **options)
            files.append(buffer.getvalue())
    return files


def png_files(folder):
    return [data for data in image_files(folder) if data.startswith(b"\x89PNG")]


def tiff_files(folder):
    """Return TIFF files of Pillow, and of kinds that it cannot write."""
    rgb = np.random.default_rng(0).integers(0, 65536, [20, 36, 3], dtype=np.uint16)
    kinds = [
        (rgb, {"tile": (16, 16)}),
        (rgb, {"compression": "deflate", "predictor": 2, "rowsperstrip": 3}),
        (rgb.transpose(2, 0, 1), {"planarconfig": "separate", "bigtiff": True}),
        (rgb / np.float32(65535), {"compression": "zstd", "predictor": 3, "byteorder": ">"}),
        (rgb[..., 0] > 9, {}),
        (rgb.transpose(2, 0, 1), {"imagej": True}),  # Three pages.
    ]
    for number, (samples, options) in enumerate(kinds):
        tifffile.imwrite(folder / f"{number}.tif", samples, **options)
    written = [(folder / f"{number}.tif").read_bytes() for number in range(len(kinds))]
    return written + [data for data in image_files(folder) if data[:2] in (b"II", b"MM")]


def with_checksums(data):
    """Return a mutated PNG with correct checksums of its chunks, as far as it has chunks."""
    sealed, rest = data[:8], data[8:]
    while len(rest) >= 12:
        length = min(int.from_bytes(rest[:4], "big"), len(rest) - 12)
        kind_and_content, rest = rest[4 : 8 + length], rest[12 + length :]
        sealed += struct.pack(">I", length) + kind_and_content + struct.pack(">I", zlib.crc32(kind_and_content))
    return sealed + rest


def read_image(path):
    rgb_files.read_header(path)
    pixels = rgb_files.read_rgb(path)
    assert pixels.ndim == 3 and len(pixels) == 3 and pixels.dtype == np.uint8


def read_pages(path):
    with open_source(path) as source:
        for index in range(min(source.pages, 5)):
            page = source.read(index)
            x = page.crop(slice(None), slice(None))
            assert x.shape == (3, *page.size) and x.dtype == np.float32


def read_both(path):
    """Read an image as 8-bit RGB, as for training, and page by page, as for inference."""
    errors = []
    for read in (read_image, read_pages):
        try:
            read(path)
        except dnnlib.UserError as error:
            errors.append(error)
    if errors:
        raise errors[-1]


def array_files(folder):
    stack, files = np.arange(360, dtype=np.uint16).reshape(3, 10, 12), []
    for save, arrays in ((np.save, [stack]), (np.savez, [stack, stack[0]]), (np.savez_compressed, [stack])):
        file = io.BytesIO()
        save(file, *arrays)
        files.append(file.getvalue())
    return files


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
        data, peak, _ = dataset_tool_mri.read_volume(path, plane)
        assert data.ndim == 3 and np.isfinite(peak) and peak > 0
        dataset_tool_mri.centred(data[:, :, 0])


KINDS = {  # Function for the data to mutate, function that makes them a file or None, file name, reader.
    "snapshot": (snapshots, None, "x.pickle", tflib.load_snapshot),
    "MRI network": (mri_networks, None, "x.pkl", tflib.load_snapshot),
    "safetensors": (safetensors_snapshots, None, "x.safetensors", tflib.load_snapshot),
    "MRI pickle": (mri_pickles, None, "x.pkl", dataset_mri.load),
    "settings": (run_settings, None, "submit_config.txt", submission.load_submit_config),
    "TFRecords": (record_files, None, "x.tfrecords", read_records),
    "TFRecords with right checksums": (record_payloads, record, "x.tfrecords", read_records),
    "image": (image_files, None, "x.png", read_both),
    "PNG with right checksums": (png_files, with_checksums, "x.png", read_both),
    "TIFF": (tiff_files, None, "x.tif", read_both),
    "array": (array_files, None, "x.npz", read_pages),
    "volume": (volumes, None, "x.nii", read_volume),
    "gzipped volume": (packed_volumes, None, "x.nii.gz", read_volume),
    "volume, then gzipped": (volumes, gzip.compress, "x.nii.gz", read_volume),
}
