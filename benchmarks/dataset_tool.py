"""Compare the speed of dataset_tool_tf.py and of a plain loop: `python benchmarks/dataset_tool.py [--input-dir DIR]`

Both make the same TFRecords file from the same photographs, alternately, on one core and on all. Run nothing else
meanwhile.
"""

import contextlib
import io
import os
import sys
import tempfile
import time

import numpy as np
from PIL import Image

import dataset_tool_tf
import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import tf
from imaging import images
from records import dead_leaves, tfrecords

assert sys.platform == "linux", "only Linux pins a process to a core"
COUNT, SIZE = 100, 512  # Number and side in pixels of the dead leaves images that stand in for photographs.


def plain_loop(paths, out):
    """Make the data set in the simplest way: decode one image after the other with Pillow, write with TensorFlow."""
    with tf.io.TFRecordWriter(out) as writer:
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
            feature = {
                "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=pixels.shape)),
                "data": tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def tool(paths, out):
    """Make the data set with the code of dataset_tool_tf.py."""
    tfrecords.write_images(out, dataset_tool_tf._convert("", paths, dataset_tool_tf.Statistics()))


def seconds(function, paths, out, cores):
    """Return the seconds that `function` takes on `cores`, without its output."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # Threads started later inherit it.
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            start = time.perf_counter()
            function(paths, out)
            return time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, before)


def main():
    """Measure and print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--input-dir", metavar="DIR", help="folder of photographs; default: synthetic images")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.input_dir:
            for index, pixels in enumerate(dead_leaves.dead_leaves_images(COUNT, 0, SIZE)):
                Image.fromarray(pixels.transpose(1, 2, 0)).save(os.path.join(folder, f"{index}.jpg"), quality=95)
        paths = images.list_images(args.input_dir or folder)
        cores = os.sched_getaffinity(0)
        cases = {f"plain loop, {len(cores)} cores": (plain_loop, cores), f"the tool, {len(cores)} cores": (tool, cores)}
        cases |= {"plain loop, 1 core": (plain_loop, {min(cores)}), "the tool, 1 core": (tool, {min(cores)})}
        times = {name: [] for name in cases}
        for number in range(-1, args.rounds):  # The first round warms up.
            for name, (function, allowed) in cases.items():
                taken = seconds(function, paths, os.path.join(folder, f"{function.__name__}.tfrecords"), allowed)
                times[name] += [taken] if number >= 0 else []
        with open(f"{folder}/tool.tfrecords", "rb") as a, open(f"{folder}/plain_loop.tfrecords", "rb") as b:
            assert a.read() == b.read(), "the files differ"
    print("| case | images per second, median (lowest-highest) | times as fast |\n| --- | --- | --- |")
    for name, values in times.items():
        median, lowest, highest = (len(paths) / f(values) for f in (np.median, max, min))
        plain = np.median(times[name.replace("the tool", "plain loop")])
        print(f"| {name} | {median:.0f} ({lowest:.0f}-{highest:.0f}) | {plain / np.median(values):.2f} |")


if __name__ == "__main__":
    dnnlib.cli_main(main)
