"""Export of RGB networks as snapshots, safetensors files and TensorFlow SavedModels."""

from dnnlib import tflib
from dnnlib.tflib import tf
from network import load_autoencoder


def export(network_snapshot, out):
    """Write a network in the form that the name `out` stands for: see `tflib.export`.

    A SavedModel maps `image` [N, 3, H, W] of any size to `denoised` of the same shape, in float32.
    """
    tflib.check_export(out)
    with tf.Graph().as_default(), tflib.create_session():
        tflib.export(load_autoencoder(network_snapshot, portable=True), out, input_name="image", output_name="denoised")
    print(f"Exported {network_snapshot} to {out}.")
