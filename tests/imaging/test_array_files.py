"""NumPy files as image files."""

import os

import numpy as np
import pytest

import dnnlib
from imaging import array_files, rgb_files
from imaging.image_files import open_source

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 4096, [4, 9, 12], dtype=np.uint16)


@pytest.mark.parametrize(
    "array,pages,mode",
    [
        (STACK[0], [STACK[0, ..., None]], "I;16"),
        (STACK, STACK[..., None], "I;16"),
        (STACK.astype(">u2"), STACK[..., None], "I;16"),
        (STACK[:, :, :3].astype(np.float64), STACK[:, :, :3, None], "F"),  # Three axes are always T, H, W.
        (RNG.integers(0, 256, [2, 9, 12, 3], dtype=np.uint8), None, "RGB"),
    ],
)
def test_shapes(tmp_path, array, pages, mode):
    np.save(tmp_path / "a.npy", array)
    pages = array if pages is None else pages
    with open_source(str(tmp_path / "a.npy")) as source:
        assert (source.pages, source.size, source.mode) == (len(pages), pages[0].shape[:2], mode)
        for index, page in enumerate(pages):
            np.testing.assert_array_equal(source.read(index).samples, page)


def test_arrays_of_a_file_follow_each_other(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez_compressed(path, first=STACK[:3], second=STACK[3])
    assert rgb_files.stored_as(path) == ("uint16", 4)
    for index in range(4):
        samples = rgb_files.read_samples(rgb_files.Frame(path, index, 4), channels=1)
        np.testing.assert_array_equal(samples[0], STACK[index])


def test_refused_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Hostile:
        def __reduce__(self):
            return os.mkdir, ("canary",)

    np.save("object.npy", np.array([Hostile()], object))
    np.savez("object.npz", a=np.array([Hostile()], object))
    np.save("signed.npy", STACK.astype(np.int32))
    np.save("axes.npy", STACK[..., None, None])
    np.save("channels.npy", STACK[..., None][..., [0, 0]])
    np.save("empty.npy", STACK[:0])
    np.save("short.npy", STACK)
    os.truncate("short.npy", 300)
    np.savez("other.zip", a=STACK)
    os.rename("other.zip.npz", "other.npz")
    with open("text.npz", "wb") as f:
        f.write(open("other.npz", "rb").read().replace(b"a.npy", b"a.txt"))
    monkeypatch.setattr(array_files, "_LARGEST", 800)
    messages = {
        "object.npy": "cannot be decoded",
        "object.npz": "cannot be decoded",
        "signed.npy": "samples of type int32 are not supported",
        "axes.npy": r"an array \[4, 9, 12, 1, 1\] is not \[H, W\], \[T, H, W\]",
        "channels.npy": r"an array \[4, 9, 12, 2\]",
        "empty.npy": "has no images",
        "short.npy": "cannot be decoded",
        "text.npz": "not an .npz file of NumPy",
        "other.npz": "has 992 bytes of arrays; save it as .npy",
    }
    for path, message in messages.items():
        with pytest.raises(dnnlib.UserError, match=rf"^{path}: {message}"), open_source(path):
            pass
    assert not os.path.exists("canary")
