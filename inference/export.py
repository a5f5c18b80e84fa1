"""Networks written in other forms: snapshots, safetensors files, TensorFlow SavedModels."""

from dnnlib import tflib
from dnnlib.tflib import tf
from network import load_autoencoder


def export(network_snapshot, out):
    """Writes a network in the form that `out` names: see `tflib.export`.

    A SavedModel takes `image` [N, 3, H, W] of any size and gives `denoised`, the same; it computes in float32.
    """
    tflib.check_export(out)
    with tf.Graph().as_default(), tflib.create_session():
        tflib.export(load_autoencoder(network_snapshot, portable=True), out, input_name="image", output_name="denoised")
    print(f"Exported {network_snapshot} to {out}.")
