"""The network that the images decide, where the command line names none."""

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

import config
import dnnlib
from dnnlib import launch
from inference import networks

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(64, 192, [40, 50, 3], dtype=np.uint8)
GREY = COLOUR[..., 0]


@pytest.fixture
def program(tmp_path, monkeypatch, snapshot, grey_snapshot):
    """The folder of a program that has three networks: that for greyscale multiplies its input by 0.5."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks").mkdir()
    snapshots = {"camera-n2n": snapshot, "gaussian-n2n": snapshot, "gaussian-grey-n2n": grey_snapshot}
    for name, path in snapshots.items():
        shutil.copy(path, tmp_path / "networks" / f"{name}.pickle")
    for module in (launch, networks):
        monkeypatch.setattr(module, "SOURCE_ROOT", str(tmp_path))
    return tmp_path


def halved(pixels):
    return (pixels - 127.5) / 2 + 127.5


def infer(image, *options):
    config.main(["infer-image", "--image", image, "--out", "out.tif", *options])
    return tifffile.imread("out.tif").astype(float)


def test_each_image_has_its_network(program, capsys):
    Image.fromarray(GREY).save("grey.png")
    np.testing.assert_allclose(infer("grey.png"), halved(GREY), atol=1)
    out = capsys.readouterr().out
    assert "Network for greyscale images: networks/gaussian-grey-n2n.pickle, as --network-snapshot names no " in out

    equal = np.stack([GREY, 0 * GREY + 255], axis=-1)[..., [0, 0, 0, 1]]  # With alpha.
    Image.fromarray(equal).save("equal.png")
    done = infer("equal.png")
    np.testing.assert_allclose(done[..., :3], halved(equal[..., :3]), atol=1)
    np.testing.assert_array_equal(done[..., 3], 255)
    assert "note: equal.png: its channels are equal; it is greyscale" in capsys.readouterr().out

    stack = [GREY / np.float32(255), COLOUR / np.float32(255)]
    with tifffile.TiffWriter("stack.tif") as f:
        for page in stack:
            f.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None, contiguous=False)
    infer("stack.tif")
    with tifffile.TiffFile("out.tif") as f:
        pages = [page.asarray() for page in f.pages]
    np.testing.assert_allclose(pages[0], (stack[0] - 0.5) / 2 + 0.5, atol=1e-5)
    np.testing.assert_allclose(pages[1], stack[1], atol=1e-5)
    assert "Network for colour images: networks/camera-n2n.pickle" in capsys.readouterr().out
    infer("stack.tif", "--noise", "gaussian")
    assert "Network for colour images: networks/gaussian-n2n.pickle" in capsys.readouterr().out


def test_a_network_that_does_not_go_with_the_image(program, snapshot, grey_snapshot, capsys):
    Image.fromarray(GREY).save("grey.png")
    Image.fromarray(COLOUR).save("colour.png")
    (program / "networks/gaussian-grey-n2n.pickle").unlink()
    for options, name in ([], "networks/camera-n2n.pickle"), (["--network-snapshot", snapshot], snapshot):
        np.testing.assert_allclose(infer("grey.png", *options), GREY, atol=1)
        assert f"warning: grey.png: is greyscale, and {name} is a network for colour" in capsys.readouterr().out
    with pytest.raises(dnnlib.UserError, match=r"^colour\.png: is in colour, and .*grey\.pickle is a network for grey"):
        infer("colour.png", "--network-snapshot", grey_snapshot)


def test_validation_of_greyscale_images(program, snapshot, capsys):
    (program / "set").mkdir()
    Image.fromarray(GREY).save("set/a.png")
    Image.fromarray(GREY).convert("RGB").save("set/b.png")
    config.main(["validate", "--dataset-dir", "set"])
    assert "Network for greyscale images: networks/gaussian-grey-n2n.pickle" in capsys.readouterr().out
    noisy, denoised, clean = (
        np.asarray(Image.open(f"results/00000-autoencoder-validate/img_0_val_1_{kind}.png"), float)
        for kind in ("noisy", "pred", "orig")
    )
    np.testing.assert_array_equal(clean, GREY)
    np.testing.assert_allclose(denoised, halved(noisy), atol=1)  # No noise is beyond 0 to 255 in these images.
    assert (noisy - clean).std() == pytest.approx(25, rel=0.05)

    config.main(["validate", "--dataset-dir", "set", "--network-snapshot", snapshot])
    assert "note: set: is greyscale, and the network is for colour; each channel" in capsys.readouterr().out
    Image.fromarray(COLOUR).save("set/c.png")
    config.main(["validate", "--dataset-dir", "set"])
    assert "Network for colour images: networks/gaussian-n2n.pickle" in capsys.readouterr().out
