"""Measure the speed of this project on this machine: `python benchmarks/run.py`; takes half an hour on two cores.

One process measures all cases alternately, in several rounds, and prints medians, lowest and highest. The ratios to
the plain graph matter most: the same network made of TensorFlow's own layers. Run nothing else meanwhile.
"""

import contextlib
import functools
import math
import os
import sys
import tempfile
import time

import numpy as np

import config
import config_mri
import corruption
import dataset
import dnnlib
import network
from benchmarks import plain_layers
from dnnlib import tflib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import layers, tf
from mri import dataset_mri, kspace
from mri.model import Model
from records import tfrecords

DEFAULTS, MRI_DEFAULTS = config.PROGRAM.defaults("train"), config_mri.PROGRAM.defaults("train")
RGB, MRI = (DEFAULTS.minibatch_size, 3, 256, 256), (MRI_DEFAULTS.minibatch_size, 255, 255)
PHOTO = (1, 3, 512, 768)  # The size of the Kodak images.
# Nominal work: multiplications and additions of the convolutions as written, 347,890 per pixel (MRI: 342,706).
GFLOP = {"RGB step": 273.6, "MRI step": 1078, "768x512": 136.8, "matrix product": 137.4}
CROPS = {"8x96x96": (8, 3, 96, 96), "4x160x160": (4, 3, 160, 160)}  # Other minibatches of the RGB step.
GFLOP |= {name: GFLOP["RGB step"] * math.prod(shape) / math.prod(RGB) for name, shape in CROPS.items()}
GFLOP_PER_MEGAPIXEL = {"RGB step": 3 * 347.89, "768x512": 347.89}
DRAIN, BLOCK = 5, 5  # Steps that use up minibatches prepared during other cases; steps measured.


class Case:
    """A case to time."""

    def __init__(self, run, block=1):
        """Args:
        run: Function that computes once.
        block: Number of runs timed at once.
        """
        self.block, self.seconds, self._run = block, [], run
        self._run()

    def run(self):
        """Time a block of runs."""
        for _ in range(DRAIN if self.block > 1 else 0):
            self._run()
        start = time.perf_counter()
        for _ in range(self.block):
            self._run()
        self.seconds.append((time.perf_counter() - start) / self.block)


def graph_case(build, *args, block=1, **kwargs):
    """Return a Case of the operations that `build(*args, **kwargs)` makes, in a graph and session of its own."""
    with tf.Graph().as_default():
        session = tflib.create_session()
        with session.as_default():
            fetches = build(*args, **kwargs)
            session.run(tf.global_variables_initializer())
            for initializer in tf.get_collection(tf.GraphKeys.TABLE_INITIALIZERS):
                session.run(initializer)
    return Case(session.make_callable(fetches), block)


def peer_case(compute, precision, *shapes):
    """Return a Case of the same network in PyTorch: eager or compiled, which is faster."""
    from benchmarks import peer

    arrays = [np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]
    rate = DEFAULTS.learning_rate if len(shapes) > 1 else None
    return Case(peer.fastest(getattr(peer, compute), precision == "bfloat16", arrays, learning_rate=rate))


def constant(shape):
    """Return noise in a variable, because TensorFlow would fold a constant into the graph."""
    values = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
    return tf.get_variable(f"constant_{len(tf.global_variables())}", initializer=values, trainable=False)


@contextlib.contextmanager
def layers_of(module):
    """Make the networks built in this context use the layers of `module`."""
    network.layers = module
    try:
        yield
    finally:
        network.layers = layers


def rgb_step(dtype, module=layers, batches=None, shape=RGB):
    """Build a training step of the RGB network: forward, backward, Adam."""
    with layers_of(module):
        net = network.create_autoencoder(dtype)
        inputs = next_of(batches)[:2] if batches else [constant(shape), constant(shape)]
        optimizer = tflib.Optimizer(DEFAULTS.learning_rate, DEFAULTS.beta1, DEFAULTS.beta2, DEFAULTS.epsilon)
        loss, update, _ = optimizer.minimize(
            lambda x, y: tf.reduce_mean(tf.square(net.get_output_for(x) - y)), inputs, ["/cpu:0"]
        )
    return [loss.op, update]


def mri_step(dtype, module=layers, batches=None):
    """Build a training step of the MRI network with its post-operation."""
    with layers_of(module):
        model = Model(MRI_DEFAULTS.post_op, dtype)
        if batches:
            inputs = next_of(batches)
        else:
            mask = tf.cast(constant(MRI) > 0.4, tf.bool)
            known = tf.cast(mask, tf.complex64) * tf.cast(constant(MRI), tf.complex64)
            inputs = [constant(MRI), constant(MRI), mask, known, constant(MRI)]
        optimizer = tflib.Optimizer(1e-3, 0.9, MRI_DEFAULTS.beta2, MRI_DEFAULTS.epsilon)
        loss, update, _ = optimizer.minimize(model.losses[MRI_DEFAULTS.loss], inputs, ["/cpu:0"])
    return [loss.op, update]


def inference(dtype, module=layers):
    """Build inference of the RGB network on a photograph of 768x512 pixels."""
    image = tf.placeholder_with_default(constant(PHOTO), [None, 3, None, None])
    with layers_of(module), layers.in_strips():
        return [network.create_autoencoder(dtype).get_output_for(image).op]


def product(dtype):
    """Build the product of two 4096x4096 matrices, a measure of the machine."""
    a = tf.cast(constant([4096, 4096]), dtype)
    return [tf.matmul(a, a).op]


def next_of(batches):
    """Return the next minibatch of the dataset that `batches()` makes."""
    iterator = tf.data.make_initializable_iterator(batches())
    tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def photo_batches(path, noise):
    """Return the minibatches that `train` makes."""
    data = dataset.TrainingData(path, RGB[-1], seed=0)
    return dataset.minibatches(data, corruption.create(noise), True, RGB[0], 0, 10**6)


def slice_batches():
    """Return the minibatches that MRI training makes, from slices of noise."""
    slices = np.random.default_rng(0).integers(256, size=[64, 256, 256], dtype=np.uint8)
    spectra = [kspace.fft2c(x[:255, :255] / np.float32(255) - np.float32(0.5)) for x in slices]
    data = dataset_mri.MriData(slices, np.array(spectra, np.complex64))
    settings = dataset_mri.Settings(dataset_mri.Undersampling(MRI_DEFAULTS.p_at_edge))
    return dataset_mri.minibatches(data, settings, 0, MRI[0], 0, 10**6)


def all_cases(path, best, peers=False):
    """Return {name: function that makes the Case}.

    Args:
        path: TFRecords file of training images.
        best: The fastest type on this hardware.
        peers: Whether to compare with PyTorch.
    """
    f32, bf16, cases, real = tf.float32, tf.bfloat16, {}, {"block": BLOCK}
    case, slices = functools.partial(functools.partial, graph_case), (MRI[0], 1, *MRI[1:])
    for name, step, shapes in (
        ("RGB step", rgb_step, [RGB, RGB]),
        ("MRI step", mri_step, [slices, slices]),
        ("768x512", inference, [PHOTO]),
    ):
        cases[f"{name}, plain"] = case(step, f32, plain_layers)
        cases[f"{name}, float32"] = case(step, f32)
        cases[f"{name}, bfloat16"] = case(step, bf16)
        for precision in ("float32", "bfloat16") if peers else ():
            cases[f"{name}, PyTorch {precision}"] = functools.partial(peer_case, step.__name__, precision, *shapes)
    cases["RGB step, constant input"] = case(rgb_step, best, **real)
    for noise in ("gaussian", "poisson"):
        batches = functools.partial(photo_batches, path, noise)
        cases[f"RGB step, {noise} input"] = case(rgb_step, best, batches=batches, **real)
    for name, shape in CROPS.items():
        cases[f"RGB step, {name}"] = case(rgb_step, best, shape=shape, **real)
    cases["MRI step, constant input"] = case(mri_step, best, **real)
    cases["MRI step, real input"] = case(mri_step, best, batches=slice_batches, **real)
    for dtype in (f32, bf16):
        cases[f"matrix product, {dtype.name}"] = case(product, dtype)
    return cases


def baseline(name):
    """Return the name of the case that case `name` is compared with."""
    group, kind = name.split(", ")
    return f"{group}, {'constant input' if kind.endswith('input') or kind in CROPS else 'plain'}"


def print_table(cases):
    """Print a Markdown table; GFLOP/s are those of the nominal work, ratios those to the baseline's."""
    rates = {}
    for name, case in cases.items():
        group, kind = name.split(", ")
        rates[name] = GFLOP.get(kind, GFLOP[group]) / np.median(case.seconds)
    print("| case | seconds, median (lowest-highest) | times as fast | GFLOP/s, nominal | megapixels/s |")
    print("| --- | --- | --- | --- | --- |")
    for name, case in cases.items():
        seconds = f"{np.median(case.seconds):.3f} ({min(case.seconds):.3f}-{max(case.seconds):.3f})"
        ratio = f"{rates[name] / rates[baseline(name)]:.2f}" if baseline(name) in cases else ""
        work = GFLOP_PER_MEGAPIXEL.get(name.split(", ")[0])
        pixels = f"{rates[name] / work:.2f}" if work else ""
        print(f"| {name} | {seconds} | {ratio} | {rates[name]:.0f} | {pixels} |")


def main():
    """Measure and print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases whose names have TEXT, or one of TEXT|TEXT|..."
    )
    parser.add_argument("--peer", action="store_true", help="compare with PyTorch, which has to be installed")
    parser.add_argument("--train-tfrecords", metavar="FILE", help="training images; default: noise, 481x321")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.train_tfrecords or os.path.join(folder, "noise.tfrecords")
        if not args.train_tfrecords:
            rng = np.random.default_rng(0)
            tfrecords.write_images(path, (rng.integers(256, size=[3, 321, 481], dtype=np.uint8) for _ in range(100)))
        cases = {}
        for name, build in all_cases(path, tflib.pick_dtype("auto"), args.peer).items():
            if any(part in name for part in args.only.split("|")):
                print(f"building: {name}", file=sys.stderr)
                cases[name] = build()
        for number in range(args.rounds):
            start = time.time()
            for case in cases.values():
                case.run()
            left = dnnlib.format_time((args.rounds - number - 1) * (time.time() - start))
            print(f"round {number + 1} of {args.rounds}, {left} left", file=sys.stderr)
    print_table(cases)


if __name__ == "__main__":
    dnnlib.cli_main(main)
