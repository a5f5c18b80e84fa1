"""Setup of TensorFlow (graph mode, quiet, deterministic), sessions and devices."""

import contextlib
import ctypes
import functools
import logging
import os
import platform
import sys
import tempfile

from ..util import UserError, cpu_count


@contextlib.contextmanager
def _quiet():
    """Hold back what TensorFlow's libraries write to stderr while they load; no variable turns all of it off."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Errors only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # Off by default on CPUs without AVX-512.
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")  # Equal seeds give equal runs on GPUs too.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Saves a second: Keras is not loaded.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
with _quiet():
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    tf.enable_resource_variables()
    tf.enable_v2_tensorshape()  # Dimensions are int or None.


def create_session(num_cpu_devices=1, **config):
    """Create a session on the default graph.

    Args:
        num_cpu_devices: Number of logical CPU devices; several stand in for GPUs in tests.
        config: Fields of `tf.ConfigProto`.
    """
    return tf.Session(config=session_config(device_count={"CPU": num_cpu_devices}, **config))


def session_config(**config):
    """Return a `tf.ConfigProto` that allocates GPU memory as needed."""
    proto = tf.ConfigProto(allow_soft_placement=True, **config)
    proto.gpu_options.allow_growth = True
    return proto


def pick_devices(num_gpus):
    """Return the names of the devices to compute on, and print them: `num_gpus` GPUs, or the CPU if there are none.

    Raises:
        UserError: There are GPUs, but fewer than `num_gpus`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or not num_gpus:
        print(f"Computing on the CPU ({cpu_count()} cores).")
        return ["/cpu:0"]
    if num_gpus > len(gpus):
        raise UserError(f"--num-gpus {num_gpus}: there are only {len(gpus)}")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus[:num_gpus]]
    print(f"Computing on {num_gpus} of {len(gpus)} GPUs: {', '.join(names)}.")
    return [f"/gpu:{i}" for i in range(num_gpus)]


def pick_dtype(precision):
    """Return the type to compute in, and print it.

    Args:
        precision: "float32", "bfloat16" or "auto", which is bfloat16 if the hardware computes it natively.
    """
    native = {"amx_bf16", "avx512_bf16"} & cpu_flags()  # Instructions for products of bfloat16.
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:  # NVIDIA tensor cores take bfloat16 from compute capability 8.0.
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        native = all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in details)
    if precision == "auto":
        precision = "bfloat16" if native else "float32"
    slow = precision == "bfloat16" and not native
    print(f"Precision: {precision}{', which this hardware computes slowly' if slow else ''}.")
    return tf.as_dtype(precision)


def on_plain_cpu():
    """Return whether an x86 CPU without AVX-512 computes, where oneDNN turns convolutions into matrix products."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and "avx512f" not in cpu_flags() and not tf.config.list_physical_devices("GPU")


@functools.lru_cache(maxsize=1)
def cpu_flags():
    """Return Linux's names of the CPU's instruction sets: on Linux all, on Windows avx512f, on other systems none."""
    if sys.platform == "win32":
        avx512 = ctypes.windll.kernel32.IsProcessorFeaturePresent(41)  # PF_AVX512F_INSTRUCTIONS_AVAILABLE
        return frozenset(["avx512f"] if avx512 else [])
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            lines = [line.split(":", 1)[1] for line in f if line.startswith("flags")]
    except OSError:
        return frozenset()
    return frozenset(lines[0].split()) if lines else frozenset()


def reason(error):
    """Return the core of the message of a TensorFlow error, without the place in the graph and the file."""
    lines = getattr(error, "message", str(error)).split("\n\t [[")[0].splitlines()
    return lines[-1].rpartition("; ")[2]
