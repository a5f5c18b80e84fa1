"""The MRI model: network, post-operation, losses, snapshots, and results with PSNR and pictures."""

import numpy as np

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images, metrics
from mri import dataset_mri, kspace
from mri.losses import fft2, measured_error, restore_known, restored_spectrum
from network import create_autoencoder_mri

MINIBATCH = 8  # Slices per minibatch in validation; bounds its memory.


class Model:
    """The network with its post-operation, on the default graph and session."""

    def __init__(self, post_op, dtype=tf.float32):
        """post_op: "fspec" (see `losses.restore_known`) or None."""
        if post_op not in ("fspec", None):
            raise dnnlib.UserError(f"post_op '{post_op}' is not known; there are 'fspec' and None")
        self.post_op = post_op
        self.network = create_autoencoder_mri(dtype)
        size = [None, dataset_mri.SIZE, dataset_mri.SIZE]
        with tf.name_scope("post_op"):
            self._mask, self._known = tf.placeholder(tf.bool, size), tf.placeholder(tf.complex64, size)
            self._restored = self._post_process(self.network.output, self._mask, self._known)
        self.losses = {"image": self._image_loss, "measured": self._measured_loss}  # They take the fields of `Element`.

    def _post_process(self, output, mask, known):
        return restore_known(output, mask, known) if self.post_op else output

    def _image_loss(self, x, target, mask, known, weight):
        """Mean squared error after the post-operation: the published loss."""
        restored = self._post_process(self.network.get_output_for(x), mask, known)
        return tf.reduce_mean(tf.square(restored - target))

    def _measured_loss(self, x, target, mask, known, weight):
        """Mean squared error over the frequencies measured in the target: see `losses.measured_error`."""
        output = self.network.get_output_for(x)
        spectrum = restored_spectrum(output, mask, known) if self.post_op else fft2(output)
        return measured_error(spectrum, target, weight)

    def run(self, elements):
        """Run the network on a list of elements. Return a list of Results."""
        x, _, mask, known, _ = (np.stack(field) for field in zip(*elements))
        return [Result(element, *output) for element, *output in zip(elements, *self.restore(x, mask, known))]

    def restore(self, x, mask, known):
        """Run the network on inputs [N, 255, 255]; returns [its outputs, the outputs after the post-operation].

        mask, known: See `Element`.
        """
        feed = {self.network.input: x, self._mask: mask, self._known: known}
        return self.network.session.run([self.network.output, self._restored], feed)

    def evaluate(self, data, settings, seed, count=None):
        """Yield the Results of the first `count` slices of `data`, by default of all, with fixed masks."""
        count = min(count or len(data), len(data))
        for start in range(0, count, MINIBATCH):
            indices = range(start, min(start + MINIBATCH, count))
            yield from self.run([dataset_mri.validation_element(data, settings, seed, i) for i in indices])

    def save(self, path):
        """Write all variables, including the optimiser's, as {name: array}: a pickle or a safetensors file."""
        variables = {_local_name(v): v for v in tf.global_variables()}
        tflib.save_arrays(tf.get_default_session().run(variables), path)

    def load(self, path):
        """Read the network from a file of `save` or of the published project, and the optimiser if the file has it.

        Returns:
            The file's content: {name: array}.

        Raises:
            UserError: The file belongs to another network or is something else.
        """
        values = tflib.load_snapshot(path).variables
        values = {name.removesuffix(":0"): value for name, value in values.items()}
        of_the_network = {name: value for name, value in values.items() if name.endswith(("/W", "/b"))}
        self.network.set_values(of_the_network or values, source=path)
        session, ours = tf.get_default_session(), {id(v) for v in self.network.vars.values()}
        for variable in tf.global_variables():
            value = values.get(_local_name(variable))
            if id(variable) in ours or value is None or value.dtype.kind not in "fiu":
                continue
            if value.shape == tuple(variable.shape):
                session.run(variable.initializer, {variable.initial_value: value})
        return values


class Result:
    """A slice and the network's output for it; all images are float32 [255, 255]."""

    def __init__(self, element, output, restored):
        self.input, self.target = element.input, element.target
        self.output, self.restored = output, restored  # Before and after the post-operation.

    def decibels(self):
        """Return PSNR in dB (peak 1) of the input, of the output, and of the output with both images clamped."""
        pairs = (self.input, self.target), (self.restored, self.target)
        return *(metrics.psnr(a, b, peak=1) for a, b in pairs), _clamped_psnr(self.restored, self.target)

    def input_db_clamped(self):
        """Return PSNR in dB (peak 1) of the input with both images clamped to [-0.5, 0.5]."""
        return _clamped_psnr(self.input, self.target)

    def picture(self):
        """Return uint8 [510, 1020]: input, network output, output after the post-operation, target; spectra below."""
        row = [self.input, self.output, self.restored, self.target]
        spectra = [np.log10(np.abs(kspace.fft2c(image)) + 1e-3) for image in row]
        spectra = [spectrum / 8 - 0.1 for spectrum in spectra]  # Maps 10^-3..10^5 to the range of an image.
        return images.to_uint8(np.block([row, spectra]))


def _clamped_psnr(a, b):
    return metrics.psnr(a.clip(-0.5, 0.5), b.clip(-0.5, 0.5), peak=1)


def _local_name(variable):
    """Return the name in the published files: `enc_conv0/W/Adam` for `autoencoder_mri/enc_conv0/W/Adam`."""
    return variable.op.name.split("autoencoder_mri/", 1)[-1]
