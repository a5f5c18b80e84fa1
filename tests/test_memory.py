"""Resident memory: the same for large training images as for small ones, and flat once a program has warmed up.

By hand for 2,040 iterations and 600 images: MEMORY_RUN=34 python -m pytest -s tests/test_memory.py
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from records import tfrecords

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measured through Linux's /proc")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LONGER = int(os.environ.get("MEMORY_RUN", 1))

RESIDENT = """
import sys
import numpy as np
import config, dnnlib, network, validation
from dnnlib import tflib
from dnnlib.tflib import tf

megabytes = []

def note():
    with open("/proc/self/status") as f:
        megabytes.append(next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmRSS")))
"""

TRAINING = """
step = dnnlib.RunContext.step
dnnlib.RunContext.step = lambda self, iteration: (note(), step(self, iteration))
config.main(["train", *sys.argv[1:]])
"""

INFERENCE = """
with tflib.create_session() as session:
    net = network.create_autoencoder()
    session.run(tf.global_variables_initializer())
    for number in range(int(sys.argv[1])):  # The largest first, none twice.
        height, width = 160 - 32 * (number % 5), 160 - number // 5
        validation.denoise(net, np.zeros([3, height, width], np.float32))
        note()
"""


def resident(script, *args):
    """Megabytes resident over the steps of a script, in a process of its own."""
    words = [sys.executable, "-c", RESIDENT + script + "print(*megabytes)", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600 * LONGER, env=environment)
    assert done.returncode == 0, done.stderr
    megabytes = [int(word) for word in done.stdout.splitlines()[-1].split()]
    print("MB at steps", {i: megabytes[i] for i in range(0, len(megabytes), max(1, len(megabytes) // 20))})
    return megabytes


def test_training_is_flat_and_takes_the_same_memory_on_images_of_12_megapixels(tmp_path, photos):
    peaks = []
    for height, width in [(3000, 4000), (300, 400)]:
        path = str(tmp_path / f"{height}.tfrecords")
        tfrecords.write_images(path, (np.full([3, height, width], level, np.uint8) for level in (0, 100, 200)))
        words = ["--run-dir-root", tmp_path / "results", "--train-tfrecords", path, "--validation-dir", photos]
        words += ["--iterations", 60 * LONGER, "--eval-interval", 12 * LONGER, "--minibatch-size", 1, "--crop-size", 32]
        megabytes = resident(TRAINING, *words)
        assert megabytes[-2] - megabytes[len(megabytes) // 3] < 20  # The first evaluation comes before, others after.
        peaks.append(max(megabytes))
    assert peaks[0] - peaks[1] < 30  # One of the large images has 36.


def test_inference_is_flat_over_images_of_all_sizes():
    megabytes = resident(INFERENCE, 60 * min(LONGER, 10))
    assert megabytes[-1] - megabytes[len(megabytes) // 2] < 40
