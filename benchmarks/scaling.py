"""Measure the cost of distributed training, and predict it for clusters: `python benchmarks/scaling.py`

The script measures a training step of the RGB network (forward, backward, averaging, Adam) alternately, in several
rounds: in one process with two threads, in two processes with one thread each that share the minibatch, and in the same
two without averaging. It also measures the averaging of buffers of several sizes; latency and bandwidth follow by least
squares. It prints a model of the step time beside the measurement, and its predictions for clusters. Run nothing else
meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.submission.workers import Workers, _free_addresses
from dnnlib.tflib.optimizer import BUFFER_SIZE

WARM_UP = 3  # Steps.
SIZES = (1 << 10, 1 << 16, 1 << 18, 1 << 20, 1 << 22)  # Bytes of the averaged buffers.
ETHERNET_LATENCY = 50e-6  # Assumed seconds per message between hosts, in addition to loopback.


def step_seconds(minibatch_size, crop_size, steps):
    """Return a list of the seconds of training steps in this process, which is a worker if TF_CONFIG says so.

    Args:
        minibatch_size: Minibatch size of this process.
        crop_size: Side of the crops in pixels.
        steps: Number of steps.
    """
    from dnnlib import tflib
    from dnnlib.tflib import tf
    from network import create_autoencoder

    cluster = _cluster()
    with tf.Graph().as_default(), cluster.create_session(tf.float32) as session:
        tf.set_random_seed(1)
        net = create_autoencoder()
        shape = [minibatch_size, 3, crop_size, crop_size]
        x = tf.Variable(np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32), trainable=False)
        optimizer = tflib.Optimizer(1e-4, beta1=0.9, beta2=0.99, epsilon=1e-8)
        loss, update, _ = optimizer.minimize(
            lambda x: tf.reduce_mean(tf.square(net.get_output_for(x))), [x], ["/cpu:0"], cluster=cluster
        )
        session.run(tf.global_variables_initializer())
        with cluster.running():
            return _time(lambda: cluster.run_step([loss.op, update], {}, lambda: None), steps)


def averaging_seconds(steps):
    """Return {bytes: seconds} for averaging a buffer over the workers."""
    from dnnlib.tflib import tf

    cluster, seconds = _cluster(), {}
    with tf.Graph().as_default(), cluster.create_session(tf.float32) as session, cluster.running():
        for size in SIZES:
            buffer = tf.Variable(tf.zeros([size // 4]))
            averaged = tf.raw_ops.CollectiveReduce(
                input=buffer,
                group_size=cluster.count,
                group_key=1,
                instance_key=cluster.instance_key(),
                merge_op="Add",
                final_op="Div",
                subdiv_offsets=[0],
                communication_hint="ring",
            )
            session.run(buffer.initializer)
            seconds[size] = float(np.median(_time(lambda: session.run(averaged.op), 20 * steps)))  # noqa: B023
    return seconds


def _cluster():
    from dnnlib import tflib

    cluster = tflib.Cluster(dnnlib.SubmitConfig(run_func_kwargs={}, run_dir=""), "")
    cluster.agree(0, {})
    return cluster


def _time(run, steps):
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def in_processes(count, threads, connected, *words):
    """Run this script's hidden command `words` in `count` processes of `threads` threads.

    Args:
        connected: Whether the processes are the workers of one cluster.

    Returns:
        The result of the first process.
    """
    addresses = _free_addresses(count)
    processes = []
    for index in range(count):
        environment = os.environ | {
            "TF_NUM_INTRAOP_THREADS": str(threads),
            "TF_NUM_INTEROP_THREADS": str(max(2, threads)),
        }
        environment |= Workers(addresses, index).to_environment() if connected else {}
        command = [sys.executable, __file__, "--worker", *map(str, words)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise dnnlib.UserError("a process of the measurement failed")
    return json.loads(outputs[0].splitlines()[-1])


def model(workers, compute, size, latency, bandwidth):
    """Return the modelled seconds of a step: computing, and a ring with 2 (W - 1) messages for each buffer.

    Args:
        workers: W, the number of workers.
        compute: Seconds of computing.
        size: Bytes of all gradients, in buffers of BUFFER_SIZE; a message has 1 / W of a buffer.
        latency: Seconds per message.
        bandwidth: Bytes per second.
    """
    buffers = -(-size // BUFFER_SIZE)
    messages = 2 * (workers - 1)
    return compute + messages * (buffers * latency + size / workers / bandwidth)


def fit(seconds):
    """Fit seconds = 2 latency + bytes / bandwidth of two workers to {bytes: seconds}. Return (latency, bandwidth)."""
    sizes, times = np.array(list(seconds), float), np.array(list(seconds.values()))
    weights = 1 / times  # Minimise relative errors, because the smallest buffer shows the latency.
    slope, offset = np.linalg.lstsq(
        np.stack([sizes, np.ones_like(sizes)], 1) * weights[:, None], times * weights, rcond=None
    )[0]
    return max(offset, 1e-6) / 2, 1 / slope


def main():
    """Measure and print the tables."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--minibatch-size", type=int, default=4, metavar="N", help="total of all workers")
    parser.add_argument("--crop-size", type=int, default=128, metavar="N")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="steps per round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measures: dict[str, Callable] = {"step": step_seconds, "averaging": averaging_seconds}
        print(json.dumps(measures[args.worker[0]](*map(int, args.worker[1:]))))
        return
    size, crop, steps = args.minibatch_size, args.crop_size, args.steps
    cases = {
        "1 process, 2 threads": (1, 2, False, "step", size, crop, steps),
        "2 processes, 1 thread each": (2, 1, True, "step", size // 2, crop, steps),
        "the same without averaging": (2, 1, False, "step", size // 2, crop, steps),
    }
    times = {name: [] for name in cases}
    averaging = []
    for number in range(args.rounds):
        for name, case in cases.items():
            times[name] += in_processes(*case)
        averaging.append({int(k): v for k, v in in_processes(2, 1, True, "averaging", steps).items()})
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    report(times, {k: float(np.median([one[k] for one in averaging])) for k in SIZES})


def report(times, averaging):
    """Print Markdown tables: the measurement, the model, and its predictions for clusters."""
    medians = {name: float(np.median(values)) for name, values in times.items()}
    print("| | seconds per step, median (lowest-highest) | iterations per second |\n| --- | --- | --- |")
    for name, values in times.items():
        print(f"| {name} | {medians[name]:.3f} ({min(values):.3f}-{max(values):.3f}) | {1 / medians[name]:.2f} |")
    _, together, alone = medians.values()
    size = gradient_bytes()
    print(f"\nGradients: {size / 1e6:.2f} MB; each of W workers sends and receives 2 (W - 1) / W times this per step.")
    print(f"Share of communication in a step of two workers: {1 - alone / together:.1%}")
    latency, bandwidth = fit(averaging)
    print("\n| bytes averaged by two workers | seconds | model |\n| --- | --- | --- |")
    for count, seconds in averaging.items():
        print(f"| {count} | {seconds:.5f} | {2 * latency + count / bandwidth:.5f} |")
    print(f"\nLatency of a message {latency * 1e6:.0f} us, bandwidth {bandwidth / 1e9:.2f} GB/s.")
    predicted = model(2, alone, size, latency, bandwidth)
    print(f"Step of two workers: model {predicted:.3f} s, measured {together:.3f} s.")
    print("\n| workers | 1 Gbit/s | 10 Gbit/s | 100 Gbit/s |\n| --- | --- | --- | --- |")
    for workers in (8, 64, 512):
        cells = []
        for gigabits in (1, 10, 100):
            rate = 1 / (1 / bandwidth + 8 / (gigabits * 1e9))  # Loopback copies, then the wire.
            seconds = model(workers, alone, size, latency + ETHERNET_LATENCY, rate)
            cells.append(f"{seconds:.3f} s, {alone / seconds:.0%}")
        print(f"| {workers} | {' | '.join(cells)} |")


def gradient_bytes():
    """Return the bytes of the float32 gradients of the RGB network."""
    from dnnlib.tflib import tf
    from network import create_autoencoder

    with tf.Graph().as_default():
        return 4 * sum(v.shape.num_elements() for v in create_autoencoder().vars.values())


if __name__ == "__main__":
    dnnlib.cli_main(main)
