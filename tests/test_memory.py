"""Resident memory: the same for large training images as for small ones, and flat once a program has warmed up.

By hand for longer: MEMORY_RUN=10 python -m pytest -s tests/test_memory.py
"""

import os
import subprocess
import sys

import pytest

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
    for number in range(int(sys.argv[1])):  # Sizes of 20 x 20 kinds, the largest first.
        height, width = 400 - number % 20, 33 + 32 * (number // 20 % 10)
        validation.denoise(net, np.zeros([3, height, width], np.float32))
        note()
"""


def resident(script, *args, **environment):
    """Megabytes resident over the steps of a script, in a process of its own."""
    words = [sys.executable, "-c", RESIDENT + script + "print(*megabytes)", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": ROOT} | environment
    done = subprocess.run(words, capture_output=True, text=True, timeout=600 * LONGER, env=environment)
    assert done.returncode == 0, done.stderr
    megabytes = [int(word) for word in done.stdout.splitlines()[-1].split()]
    print("MB at steps", {i: megabytes[i] for i in range(0, len(megabytes), max(1, len(megabytes) // 10))})
    return megabytes
