"""Measure the network on a GPU where TensorFlow is missing, through JAX: nothing of the program runs there but this.

    python benchmarks/gpu.py write results/gpu                # with TensorFlow, on a CPU
    PYTHONPATH=. python benchmarks/gpu.py run results/gpu     # with JAX, on the GPU; the folder was copied there

`write` writes the loss and gradients of a training step and the inference of a photograph as StableHLO, in float32 and
bfloat16, with the results of the CPU. `run` has XLA compile and run them, and prints the seconds, how far the results
are from the CPU's, and the seconds of the same network in PyTorch. XLA's time is not that of the program.
"""

import functools
import os
import time

import numpy as np

import dnnlib
from dnnlib.options import ArgumentParser, positive_int

INPUTS = {"step": ["x", "y"], "photo": ["photo"]}
PRECISIONS = ("float32", "bfloat16")
ROUNDS = 20


def write(folder, crop_size):
    """Write `<case>-<precision>.mlir` and `arrays.npz` to the folder."""
    os.environ["TF_DETERMINISTIC_OPS"] = "0"  # XLA has no deterministic gradient of max pooling.
    import tensorflow.compat.v2 as tf2
    from tensorflow.python.eager import context

    import network
    from dnnlib import tflib
    from dnnlib.tflib import tf

    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        weights = net.get_values()

    def output(dtype, x, values):
        table = {f"net/{name}": value for name, value in zip(weights, values)}
        with tf.variable_scope("net", custom_getter=lambda getter, name, *args, **kwargs: table[name]):
            return network.autoencoder(x, dtype)

    def step(dtype, x, y, *values):
        loss = tf.reduce_mean(tf.square(output(dtype, x, values) - y))
        return [loss, *tf.gradients(loss, list(values))]

    def photo(dtype, x, *values):
        return [output(dtype, x, values)]

    rng, arrays = np.random.default_rng(0), {f"weights:{name}": value for name, value in weights.items()}
    shapes = {"x": (4, 3, crop_size, crop_size), "photo": (1, 3, 2 * crop_size, 3 * crop_size)}
    arrays |= {n: rng.uniform(-0.5, 0.5, shapes.get(n, shapes["x"])).astype(np.float32) for n in ("x", "y", "photo")}
    os.makedirs(folder, exist_ok=True)
    for case, function in (("step", step), ("photo", photo)):
        inputs = [arrays[name] for name in INPUTS[case]] + list(weights.values())
        for precision in PRECISIONS:
            compute = functools.partial(function, tf.as_dtype(precision))
            with tf.Graph().as_default(), tflib.create_session() as session:
                results = session.run(compute(*map(tf.constant, inputs)))
            arrays |= {f"{case}-{precision}-{number}": value for number, value in enumerate(results)}
            with context.eager_mode():
                specs = [tf2.TensorSpec(a.shape, tf.float32) for a in inputs]
                compiled = tf2.function(compute, jit_compile=True).experimental_get_compiler_ir(*specs)
                text = compiled(stage="stablehlo", platform_name="CPU")
            with dnnlib.open_atomic(os.path.join(folder, f"{case}-{precision}.mlir")) as f:
                f.write(text)
    with dnnlib.open_atomic(os.path.join(folder, "arrays.npz"), "wb") as f:
        np.savez(f, **arrays)


def run(folder):
    """Compile and run what `write` wrote; print a table."""
    import jax
    from jaxlib import xla_client

    arrays = dict(np.load(os.path.join(folder, "arrays.npz")))
    weights = {name.removeprefix("weights:"): value for name, value in arrays.items() if name.startswith("weights:")}
    device = jax.devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}, medians of {ROUNDS}\n")
    print("| case | XLA, seconds | difference from the CPU | PyTorch, seconds | difference |")
    print("| --- | --- | --- | --- | --- |")
    for case, names in INPUTS.items():
        inputs = [arrays[name] for name in names]
        for precision in PRECISIONS:
            with open(os.path.join(folder, f"{case}-{precision}.mlir"), encoding="utf-8") as f:
                executable = device.client.compile_and_load(f.read(), [device], xla_client.CompileOptions())
            placed = [jax.device_put(a, device) for a in (*inputs, *weights.values())]
            taken, results = seconds(lambda e=executable, p=placed: jax.block_until_ready(e.execute(p)))
            expected = [arrays[f"{case}-{precision}-{number}"] for number in range(len(results))]
            row = [f"{case}, {precision}", f"{taken:.5f}", difference(results, expected)]
            print("|", " | ".join(row + peer_cells(case, precision, inputs, weights, expected)), "|", flush=True)


def peer_cells(case, precision, inputs, weights, expected):
    """Return the cells of the table for PyTorch, which may be missing."""
    try:
        from benchmarks import peer
    except ImportError:
        return ["", ""]
    compute = peer.rgb_step if case == "step" else peer.inference
    taken, results = seconds(peer.fastest(compute, precision == "bfloat16", inputs, weights))
    first = results[0] if case == "step" else results  # The loss: gradients come in another order.
    return [f"{taken:.5f}", difference([first.detach().cpu().numpy()], expected[:1])]


def seconds(compute):
    """Return (median of the seconds that `compute()` takes, its result)."""
    taken = []
    for _ in range(ROUNDS + 3):  # The first three warm up.
        start = time.perf_counter()
        result = compute()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[3:])), result


def difference(results, expected):
    """Return the largest relative difference of an array of `results` from that of `expected`, as text."""
    pairs = [(np.asarray(a, np.float64), b) for a, b in zip(results, expected)]
    return f"{max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs):.1e}"


def main():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("write", "run"))
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--crop-size", type=positive_int, default=256, metavar="N", help="of `write`; a multiple of 32")
    args = parser.parse_args()
    if args.what == "write":
        write(args.folder, args.crop_size)
    else:
        dnnlib.util.require("jax", "benchmarks/gpu.py run", "jax")
        run(args.folder)


if __name__ == "__main__":
    dnnlib.cli_main(main)
