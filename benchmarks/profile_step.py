"""Profile a training step by kind of operation: `python benchmarks/profile_step.py [--plain]`

One operation runs at a time, on all cores, so that the times add up to the time of the step.
"""

import collections

import dnnlib
from benchmarks import plain_layers
from benchmarks.run import rgb_step
from dnnlib import tflib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import layers, tf

WARM_UP = 3  # Steps.


def main():
    """Print the number, milliseconds and share of every kind of operation, the longest first."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--plain", action="store_true", help="profile the plain layers")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    args = parser.parse_args()
    with tf.Graph().as_default(), tflib.create_session(inter_op_parallelism_threads=1) as session:
        step = rgb_step(tflib.pick_dtype(args.precision), plain_layers if args.plain else layers)
        session.run(tf.global_variables_initializer())
        for _ in range(WARM_UP):
            session.run(step)
        options, metadata = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
        session.run(step, options=options, run_metadata=metadata)
    times = collections.defaultdict(list)
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:  # The label is like "[CPU] name = Operation(inputs)".
            kind = node.timeline_label.partition(" = ")[2].partition("(")[0] or "other"
            times[kind].append((node.op_end_rel_micros - node.op_start_rel_micros) / 1000)
    total = sum(map(sum, times.values()))
    print("| operation | number | ms | share |\n| --- | --- | --- | --- |")
    for kind, values in sorted(times.items(), key=lambda item: -sum(item[1])):
        if sum(values) > 0.005 * total:
            print(f"| {kind} | {len(values)} | {sum(values):.0f} | {sum(values) / total:.1%} |")


if __name__ == "__main__":
    dnnlib.cli_main(main)
