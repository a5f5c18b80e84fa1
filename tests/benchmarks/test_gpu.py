"""benchmarks/gpu.py, with JAX on the CPU in the place of the GPU."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("jax")

RUN = """import sys
sys.modules["tensorflow"] = sys.modules["torch"] = None  # PyTorch takes minutes to compile.
from benchmarks import gpu
gpu.ROUNDS = 1
gpu.main()"""


def test_results_are_those_of_tensorflow(tmp_path):
    def python(*words):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python(os.path.join(ROOT, "benchmarks/gpu.py"), "write", "exported", "--crop-size", "32")
    rows = re.findall(r"^\| (\w+), (\w+) \| [\d.]+ \| ([\d.e+-]+) \|", python("-c", RUN, "run", "exported"), re.M)
    assert [row[:2] for row in rows] == [(case, t) for case in ("step", "photo") for t in ("float32", "bfloat16")]
    for _, precision, difference in rows:
        assert float(difference) < {"float32": 1e-4, "bfloat16": 0.1}[precision]
