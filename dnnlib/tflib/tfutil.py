"""TensorFlow set up once: graph mode, quiet, deterministic; sessions and devices."""

import contextlib
import functools
import logging
import os
import tempfile

from ..util import UserError, cpu_count


@contextlib.contextmanager
def _quiet():
    """Holds back what TensorFlow's libraries write to stderr as they load; no variable turns all of it off."""
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


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Notes on CPU instructions and the like.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # By default TensorFlow does without on CPUs that lack AVX-512.
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")  # The same seed gives the same run on a GPU too.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keeps it from loading Keras, which nobody needs, for a second.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
with _quiet():
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    tf.enable_resource_variables()
    tf.enable_v2_tensorshape()  # Dimensions are int or None.


def create_session(num_cpu_devices=1, **config):
    """A session on the default graph. `config` are fields of `tf.ConfigProto`.

    More than one logical CPU device stands in for as many GPUs in tests.
    """
    return tf.Session(config=session_config(device_count={"CPU": num_cpu_devices}, **config))


def session_config(**config):
    """A `tf.ConfigProto` with which GPU memory is taken as it is needed."""
    proto = tf.ConfigProto(allow_soft_placement=True, **config)
    proto.gpu_options.allow_growth = True
    return proto


def pick_devices(num_gpus):
    """Names of the devices to compute on: `num_gpus` GPUs, or the CPU where there are none. Says which in one line.

    UserError if there are GPUs, but fewer than asked for.
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
    """The type to compute in, by "float32", "bfloat16" or "auto": bfloat16 where the hardware has it, else float32.

    Says which in one line.
    """
    native = {"amx_bf16", "avx512_bf16"} & cpu_flags()  # Instructions for products of bfloat16.
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:  # From compute capability 8.0, NVIDIA's tensor cores take bfloat16.
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        native = all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in details)
    dtype = ("bfloat16" if native else "float32") if precision == "auto" else precision
    print(f"Precision: {dtype}{'' if native or dtype == 'float32' else ', which this hardware computes slowly'}.")
    return tf.as_dtype(dtype)


def on_plain_cpu():
    """Whether the CPU computes, and has no AVX-512, so that oneDNN makes matrix products of convolutions."""
    return "avx512f" not in cpu_flags() and not tf.config.list_physical_devices("GPU")


@functools.lru_cache(maxsize=1)
def cpu_flags():
    """Names of the instruction sets of the CPU, as Linux gives them; empty on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            lines = [line.split(":", 1)[1] for line in f if line.startswith("flags")]
    except OSError:
        return frozenset()
    return frozenset(lines[0].split()) if lines else frozenset()


def reason(error):
    """What an error of TensorFlow's says: the middle of a long message, after the place in the graph and the file."""
    lines = getattr(error, "message", str(error)).split("\n\t [[")[0].splitlines()
    return lines[-1].rpartition("; ")[2]
