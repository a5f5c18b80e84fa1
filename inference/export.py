"""Export of networks as snapshots, TensorFlow SavedModels and ONNX files."""

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from mri.model import Model
from network import load_autoencoder


def export(network_snapshot, out):
    """Write a network for images in the form that the suffix of `out` names.

    SavedModels and ONNX files map `image` [N, C, H, W] of any size to `denoised` of the same shape, in float32.
    """
    _check(out)
    with tf.Graph().as_default(), tflib.create_session():
        _write(load_autoencoder(network_snapshot, portable=True), network_snapshot, out)


def export_mri(network_snapshot, out):
    """Write an MRI network in the form that the suffix of `out` names.

    A snapshot keeps the optimiser's variables. SavedModels and ONNX files map `image` [N, 255, 255] to `denoised` of
    the same shape: the network without the post-operation, in float32.
    """
    _check(out)
    with tf.Graph().as_default(), tflib.create_session() as session:
        model = Model(post_op=None)
        session.run(tf.global_variables_initializer())
        values = model.load(network_snapshot)
        _write(model.network, network_snapshot, out, values)


def _check(out):
    """Raise UserError if nothing can be written to `out`."""
    tflib.check_export(out)
    if _is_onnx(out):
        dnnlib.util.require("onnx", f"--out {out}", "-e '.[onnx]'")


def _write(network, snapshot, out, arrays=None):
    if _is_onnx(out):
        from inference import onnx_file  # The package onnx is optional.

        dnnlib.util.make_parents(out)
        onnx_file.write(network, out)
    else:
        tflib.export(network, out, input_name="image", output_name="denoised", arrays=arrays)
    print(f"Exported {snapshot} to {out}.")


def _is_onnx(out):
    return out.lower().endswith(".onnx")
