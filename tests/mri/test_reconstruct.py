"""Tests of `config_mri.py reconstruct`: against NumPy with a small network, and what it refuses."""

import os

import nibabel
import numpy as np
import pytest
from conftest import smooth_image
from PIL import Image

import config_mri
import dnnlib
import network
from dnnlib import tflib
from dnnlib.tflib import tf
from mri import kspace

CENTRE = (127, 127)
LOW, HIGH = 20.0, 120.0


def half(x, dtype):
    """Build a network w x + b, w 0.5 and b 0.1 in these tests."""
    w = tf.get_variable("conv/W", [1], initializer=tf.zeros_initializer())
    return w * x + tf.get_variable("conv/b", [1], initializer=tf.zeros_initializer())


def make_kspace(count, seed=0):
    """Return (slices between LOW and HIGH, their undersampled spectra, masks), all [count, 255, 255]."""
    rng = np.random.default_rng(seed)
    slices = np.stack([smooth_image(255, 255, seed=k)[0] / 255 * (HIGH - LOW) + LOW for k in range(count)])
    masks = np.stack([kspace.draw_mask(kspace.keep_probability(255, 0.025), rng) for _ in slices])
    return slices, np.fft.fftshift(np.fft.fft2(slices), axes=(1, 2)) * masks, masks


@pytest.fixture
def reconstruct(tmp_path, monkeypatch):
    """Run the command in the folder of the test, with the network `half`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "autoencoder_mri", half)
    tflib.save_arrays({"conv/W": np.full([1], 0.5), "conv/b": np.full([1], 0.1)}, "net.pkl")

    def run(array, out, *options):
        np.save("kspace.npy", array)
        words = ["--kspace", "kspace.npy", "--out", out, "--network-snapshot", "net.pkl"]
        config_mri.main(["reconstruct", *words, "--range", str(LOW), str(HIGH), *options])

    return run


def expected_slices(spectra, masks, post_op):
    """Return what NumPy makes of the spectra, on the scale of the images."""
    scaled = spectra / (HIGH - LOW)
    scaled[:, 127, 127] -= 255**2 * (LOW / (HIGH - LOW) + 0.5)
    weighted = scaled / kspace.keep_probability(255, 0.025)
    output = 0.5 * np.fft.ifft2(np.fft.ifftshift(weighted, axes=(1, 2))).real + 0.1
    if post_op:
        spectrum = np.where(masks, scaled, np.fft.fftshift(np.fft.fft2(output), axes=(1, 2)))
        output = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(1, 2))).real
    return (output + 0.5) * (HIGH - LOW) + LOW


def test_volume(reconstruct, capsys):
    _, spectra, masks = make_kspace(9)  # More than a minibatch.
    reconstruct(spectra.astype(np.complex64), "new/slices.nii.gz")
    volume = nibabel.load("new/slices.nii.gz")
    assert volume.shape == (255, 255, 9) and volume.get_data_dtype() == np.float32
    expected = expected_slices(spectra, masks, post_op=True)
    np.testing.assert_allclose(np.moveaxis(volume.get_fdata(), 2, 0), expected, atol=2e-3)
    assert "Reconstructed kspace.npy to new/slices.nii.gz; number of slices: 9." in capsys.readouterr().out


def test_png(reconstruct):
    _, spectra, masks = make_kspace(1)
    reconstruct(spectra[0], "slice.png", "--post-op", "none")
    expected = (expected_slices(spectra, masks, post_op=False)[0] - LOW) / (HIGH - LOW)
    with Image.open("slice.png") as image:
        assert image.mode == "I;16"
        np.testing.assert_allclose(np.asarray(image), (expected * 65535).clip(0, 65535), atol=2)


def test_p_at_edge(reconstruct):
    slices, spectra, _ = make_kspace(2)
    full = np.fft.fftshift(np.fft.fft2(slices), axes=(1, 2))
    reconstruct(full, "all.nii", "--p-at-edge", "1")  # Every frequency is put back.
    np.testing.assert_allclose(np.moveaxis(nibabel.load("all.nii").get_fdata(), 2, 0), slices, atol=1e-3)
    with pytest.raises(dnnlib.UserError, match=r"100\.0% of the frequencies in ring 1 of 4 .*-edge 0\.025 keeps, 55"):
        reconstruct(full, "all.nii")
    with pytest.raises(dnnlib.UserError, match=r"ring \d of 4"):
        reconstruct(spectra, "all.nii", "--p-at-edge", "0.05")


def changed(index, value):
    def change(spectra):
        spectra = spectra.copy()
        spectra[index] = value(spectra[index]) if callable(value) else value
        return spectra

    return change


@pytest.mark.parametrize(
    "change,message",
    [
        (np.abs, r"kspace\.npy: holds float64, not the complex numbers"),
        (lambda x: x[:, 1:, 1:], r"is \[2, 254, 254\], not \[255, 255\] or \[N, 255, 255\]$"),
        (lambda x: x[None], r"is \[1, 2, 255, 255\], .*; of several coils, take the k-space of the combined image"),
        (lambda x: x[:0], r"is \[0, 255, 255\]"),
        (changed((1, *CENTRE), np.nan), "slice 1: has numbers that are not finite"),
        (lambda x: np.fft.ifftshift(x, axes=(1, 2)), r"\[127, 127\]; np\.fft\.fftshift puts the zero frequency"),
        (changed((1, *CENTRE), 0), "slice 1: has 0 in the centre"),
        (changed((1, 127, 128), 0), "slice 1: has frequencies without their point reflections"),
        (lambda x: x * np.exp(0.1j), "slice 0: is not that of a real image"),
        (
            changed((1, *CENTRE), lambda x: x / 10),
            r"slice 1: its mean is [\d.]+, .* for 20 and white for 120; name",
        ),
        (lambda x: np.array([None]), r"kspace\.npy: not a \.npy or \.npz file of numbers"),
    ],
)
def test_refused(reconstruct, change, message):
    _, spectra, _ = make_kspace(2)
    with pytest.raises(dnnlib.UserError, match=message):
        reconstruct(change(spectra), "out.nii")
    assert sorted(os.listdir()) == ["kspace.npy", "net.pkl"]


@pytest.mark.parametrize(
    "out,message",
    [("out.png", r"out\.png: PNG cannot hold 2 slices; use \.nii\.gz"), ("out.jpg", r"written as \.nii, \.nii\.gz or")],
)
def test_refused_output(reconstruct, out, message):
    with pytest.raises(dnnlib.UserError, match=message):
        reconstruct(make_kspace(2)[1], out)
    assert sorted(os.listdir()) == ["kspace.npy", "net.pkl"]
