"""Reconstruction of slices from undersampled k-space: `config_mri.py reconstruct`.

The network knows k-space as training undersamples it. Anything else is refused, because its result would look plausible
and be wrong.
"""

import gzip

import numpy as np
from PIL import Image

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from dnnlib.util import words_of
from imaging import images
from mri import dataset_mri, kspace
from mri.dataset_mri import SIZE
from mri.model import MINIBATCH, Model

_NIFTI = (".nii", ".nii.gz")
_CENTRE = SIZE // 2
_RINGS = 4  # Rings of k-space in which the density is compared.


def reconstruct(kspace_file, out, network_snapshot, sample_range, p_at_edge, post_op, num_gpus, precision):
    """Reconstruct every slice of a file.

    Args:
        kspace_file: Path of an array of `read_kspace`.
        out: Path of the result: a NIfTI volume [rows, columns, slices] in float32, or for one slice a 16-bit PNG.
        network_snapshot: Path of the network.
        sample_range: Values of the images that are black and white.
        p_at_edge: Density of the undersampling, see `kspace.keep_probability`.
        post_op: See `Model`.
        num_gpus: Number of GPUs to use.
        precision: Arithmetic of the network, see `tflib.pick_dtype`.
    """
    is_nifti = out.lower().endswith(_NIFTI)
    if not is_nifti and not out.lower().endswith(".png"):
        raise dnnlib.UserError(f"{out}: slices are written as .nii, .nii.gz or .png")
    dnnlib.util.check_output(out)
    spectra = read_kspace(kspace_file)
    if not is_nifti and len(spectra) > 1:
        raise dnnlib.UserError(f"{out}: PNG cannot hold {len(spectra)} slices; use .nii.gz")
    undersampling = dataset_mri.Undersampling(p_at_edge)
    check_density(spectra, undersampling, kspace_file)
    masks = spectra != 0
    black, white = sample_range
    spectra = _to_network(spectra, black, white, kspace_file)

    with tf.Graph().as_default(), tflib.create_session() as session:
        tflib.pick_devices(num_gpus)
        model = Model(post_op, tflib.pick_dtype(precision))
        session.run(tf.global_variables_initializer())
        model.load(network_snapshot)
        restored = []
        for start in range(0, len(spectra), MINIBATCH):
            known, mask = (x[start : start + MINIBATCH] for x in (spectra, masks))
            restored.append(model.restore(kspace.undersample(known, mask, undersampling.probability), mask, known)[1])
    dnnlib.util.make_parents(out)
    if is_nifti:
        _write_nifti(out, (np.concatenate(restored) + 0.5) * (white - black) + black)
    else:
        images.save(out, Image.fromarray(images.to_uint(restored[0][0], np.uint16)))
    print(f"Reconstructed {kspace_file} to {out}; number of slices: {len(spectra)}.")


def read_kspace(path):
    """Read undersampled k-space: complex [255, 255] or [N, 255, 255] of a .npy or .npz file.

    Every slice is the spectrum `np.fft.fftshift(np.fft.fft2(image))` of a real image, where it was measured, and zero
    elsewhere: a frequency and its point reflection are both measured or both not, and the zero frequency is measured.

    Returns:
        complex128 [N, 255, 255].

    Raises:
        UserError: The file holds anything else.
    """
    spectra = _read_array(path)
    if spectra.dtype.kind != "c":
        raise dnnlib.UserError(f"{path}: holds {spectra.dtype}, not the complex numbers of k-space")
    if spectra.shape[-2:] != (SIZE, SIZE) or spectra.ndim not in (2, 3) or not spectra.size:
        hint = "; of several coils, take the k-space of the combined image" if spectra.ndim > 3 else ""
        raise dnnlib.UserError(f"{path}: is {list(spectra.shape)}, not [{SIZE}, {SIZE}] or [N, {SIZE}, {SIZE}]{hint}")
    spectra = spectra.reshape(-1, SIZE, SIZE).astype(np.complex128)
    for index, spectrum in enumerate(spectra):
        mask, reflected, name = spectrum != 0, spectrum[::-1, ::-1], f"{path}, slice {index}"
        centre = f"[{_CENTRE}, {_CENTRE}]; np.fft.fftshift puts the zero frequency there"
        if not np.isfinite(spectrum).all():
            raise dnnlib.UserError(f"{name}: has numbers that are not finite; set to 0 what was not measured")
        if not mask[_CENTRE, _CENTRE]:
            raise dnnlib.UserError(f"{name}: has 0 in the centre, {centre}")
        if (mask != (reflected != 0)).any():
            raise dnnlib.UserError(f"{name}: has frequencies without their point reflections about {centre}")
        if np.linalg.norm(spectrum - reflected.conj()) > 1e-3 * np.linalg.norm(spectrum):
            raise dnnlib.UserError(f"{name}: is not that of a real image; take the k-space of the image's magnitude")
    return spectra


def check_density(spectra, undersampling, path):
    """Raise UserError if the density of measured frequencies is not that of `undersampling`, from centre to edge."""
    axis = np.arange(SIZE) - _CENTRE
    rings = np.minimum(np.hypot(axis[:, None], axis) * 2 * _RINGS // SIZE, _RINGS - 1)
    for ring in range(_RINGS):
        probability = undersampling.probability[rings == ring]
        expected = len(spectra) * probability.sum()
        deviation = np.sqrt(2 * len(spectra) * (probability * (1 - probability)).sum())  # Frequencies come in pairs.
        measured = np.count_nonzero(spectra[:, rings == ring])
        if abs(measured - expected) > 0.1 * expected + 5 * deviation:
            found, needed = (f"{count / len(spectra) / probability.size:.1%}" for count in (measured, expected))
            raise dnnlib.UserError(
                f"{path}: has {found} of the frequencies in ring {ring + 1} of {_RINGS} about the centre; the network "
                f"needs those that --p-at-edge {undersampling.p_at_edge:g} keeps, {needed} there"
            )


def _read_array(path):
    try:
        array = np.load(path, allow_pickle=False)
        if isinstance(array, np.ndarray):
            return array
        with array:
            names = array.files
            if len(names) == 1:
                return array[names[0]]
    except Exception as error:  # A damaged file raises errors of several types.
        raise dnnlib.UserError(f"{path}: not a .npy or .npz file of numbers ({words_of(error)})") from None
    raise dnnlib.UserError(f"{path}: holds {len(names)} arrays; one is needed")


def _to_network(spectra, black, white, path):
    """Return the spectra of the images as the network sees them, black -0.5 and white 0.5, as complex64."""
    for index, mean in enumerate(spectra[:, _CENTRE, _CENTRE].real / SIZE**2):
        if not black < mean < white:
            raise dnnlib.UserError(
                f"{path}, slice {index}: its mean is {mean:g}, but black is taken for {black:g} and white for "
                f"{white:g}; name both by --range LOW HIGH"
            )
    spectra = spectra / (white - black)
    spectra[:, _CENTRE, _CENTRE] -= SIZE**2 * (black / (white - black) + 0.5)
    return spectra.astype(np.complex64)


def _write_nifti(path, slices):
    """Write [N, H, W] as a volume [H, W, N]. Its header names neither orientation nor size of the voxels."""
    import nibabel

    data = nibabel.Nifti1Image(np.moveaxis(slices, 0, 2).astype(np.float32), affine=None).to_bytes()
    with dnnlib.open_atomic(path, "wb") as f:
        f.write(gzip.compress(data, mtime=0) if path.lower().endswith(".gz") else data)
