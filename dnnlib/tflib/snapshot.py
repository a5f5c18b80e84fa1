"""Snapshots of networks in two formats, which the suffix selects.

`.safetensors` holds the variables as float32 arrays and, as JSON in its metadata, version 2, name, static_kwargs,
build_func_name, and data if there is any. Any other suffix means the pickle of a `Network`. Its state is a dictionary
of these fields, build_module_src (source code, for readers only), and variables, a list of (local name, float32 array).
Both formats may also hold nothing but named arrays.

Nothing in a snapshot is executed: the program that loads one builds the network with its own code.
"""

import json
import os

import numpy as np
import safetensors.numpy

from .. import safe_pickle
from ..submission.resume import final_network
from ..util import (
    EasyDict,
    UserError,
    atomic_folder,
    check_output,
    check_output_folder,
    make_parents,
    open_atomic,
    printable,
    words_of,
)
from .tfutil import create_session, reason, tf

_FIELDS = {"version": int, "name": str, "static_kwargs": dict, "build_func_name": str}
_OTHER_FILES = {  # First bytes of a file: its kind.
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WebP picture",
    b"BM": "a BMP picture",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x1f\x8b": "a compressed file",
    b"PK": "a ZIP archive",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a PyTorch file",  # Before PyTorch 1.6.
}
_LARGEST = 1 << 30  # Maximum bytes of a snapshot, against sparse files that claim any size.


def save_snapshot(network, path):
    """Write a snapshot of `network` with its values."""
    if _is_safetensors(path):
        state = network.__getstate__()
        fields = [*_FIELDS, "data"] if "data" in state else _FIELDS
        _write_safetensors(path, dict(state["variables"]), {field: json.dumps(state[field]) for field in fields})
    else:
        safe_pickle.dump(path, network)


def save_arrays(arrays, path):
    """Write a snapshot that holds only {name: array}."""
    if _is_safetensors(path):
        _write_safetensors(path, arrays)
    else:
        safe_pickle.dump(path, arrays)


def load_snapshot(path):
    """Read a snapshot without running any code from it.

    Args:
        path: A file, or the directory of a complete run, which stands for its final network.

    Returns:
        EasyDict of its state, with `variables` as {local name: float32 array}. A file that holds only arrays has no
        other state.

    Raises:
        UserError: The file is not a snapshot, or holds anything but names and arrays.
    """
    if os.path.isdir(path):
        path = _network_in(path)
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
    if size > _LARGEST:
        raise UserError(f"{path}: not a network snapshot: {size} bytes are too many")
    try:
        state = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    except UserError:
        kind = _other_kind(path)
        if kind is None:
            raise
        raise UserError(f"{path}: is {kind}, not a network snapshot (*.pickle, *.pkl, *.safetensors)") from None
    for field, kind in _FIELDS.items():
        if state.keys() != {"variables"} and not isinstance(state.get(field), kind):
            raise UserError(f"{path}: not a network snapshot: its {field} is missing or wrong")
    if not isinstance(state.get("data", {}), dict):
        raise UserError(f"{path}: not a network snapshot: its data is wrong")
    if state.get("version", 2) != 2:
        raise UserError(f"{path}: a snapshot of version {printable(state['version'])}; only version 2 is known")
    return EasyDict(state, variables=_named_arrays(state.get("variables"), path))


def check_export(path):
    """Raise UserError if no network can be written to `path`, by `export` or as an ONNX file."""
    suffix = os.path.splitext(path)[1]
    if _is_folder(path):
        check_output_folder(path)
    elif suffix.lower() not in (".pickle", ".pkl", ".safetensors", ".onnx"):
        raise UserError(f"{path}: no network has the suffix '{suffix}'; use .pickle, .safetensors, .onnx, or end in /")
    else:
        check_output(path)


def export(network, path, input_name, output_name, arrays=None):
    """Write `network` as a snapshot or as a SavedModel, which needs only TensorFlow.

    Args:
        path: *.pickle, *.pkl or *.safetensors for a snapshot. Without a suffix, or with a slash at the end, the folder
            of a SavedModel.
        input_name, output_name: Names of input and output in the signature `serving_default` of the SavedModel.
        arrays: If given, a snapshot holds only these, {name: array}.
    """
    make_parents(path)
    if _is_folder(path):
        _write_saved_model(network, path, input_name, output_name)
    elif arrays is None:
        save_snapshot(network, path)
    else:
        save_arrays(arrays, path)


def _network_in(folder):
    final = final_network(folder)
    if final:
        return final
    if os.path.exists(os.path.join(folder, "saved_model.pb")):
        raise UserError(f"{folder}: is a SavedModel for other programs; name the snapshot that it was exported from")
    if os.path.exists(os.path.join(folder, "network_best.pickle")):
        raise UserError(f"{folder}: has no final network, as the run is not complete; name its network_best.pickle")
    raise UserError(f"{folder}: is a folder without a final network; name a file")


def _other_kind(path):
    """Return the kind of a file that is not a snapshot, or None if it is unknown."""
    with open(path, "rb") as f:
        start = f.read(256)
    if start[8:10] == b'{"' and not _is_safetensors(path):
        return "a safetensors file of another suffix"
    if start.startswith(b"PK") and b"data.pkl" in start:
        return "a PyTorch file"
    return next((kind for magic, kind in _OTHER_FILES.items() if start.startswith(magic)), None)


class _State:
    """Stands in for `Network` while its pickle is read; only keeps the state."""

    def __setstate__(self, state):
        self.state = state


def _read_pickle(path):
    admitted = {("dnnlib.tflib.network", "Network"): _State, ("dnnlib.util", "EasyDict"): EasyDict}
    loaded = safe_pickle.load(path, admitted)
    state = getattr(loaded, "state", None) if isinstance(loaded, _State) else {"variables": loaded}
    if not isinstance(state, dict):
        raise UserError(f"{path}: not a network snapshot")
    return state


def _read_safetensors(path):
    """Read the state from a safetensors file; the library checks the sizes in the header before it allocates memory."""
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            metadata = f.metadata() or {}
            state = {field: json.loads(metadata[field]) for field in (*_FIELDS, "data") if field in metadata}
            return state | {"variables": {name: f.get_tensor(name) for name in f.keys()}}  # noqa: SIM118 - not a dict.
    except Exception as error:  # A damaged file raises errors of several types.
        what = f"not a safetensors file, truncated or damaged ({words_of(error)})"
        raise UserError(f"{path}: {what}") from None


def _write_safetensors(path, arrays, metadata=None):
    # The library writes the memory of an array as it is: it must be in C order.
    arrays = {name: np.asarray(value, np.float32, order="C") for name, value in arrays.items()}
    with open_atomic(path, "wb") as f:
        f.write(safetensors.numpy.save(arrays, metadata))


def _write_saved_model(network, path, input_name, output_name):
    ends = [network.input.name, network.output.name]
    session = network.session
    graph_def = tf.graph_util.convert_variables_to_constants(  # Keeps only what the output depends on.
        session, session.graph.as_graph_def(), [network.output.op.name]
    )
    for node in graph_def.node:
        node.attr.pop("_gradient_op_type", None)  # Plain TensorFlow lacks these gradients.
    with tf.Graph().as_default(), create_session() as session, atomic_folder(path) as folder:
        x, y = tf.import_graph_def(graph_def, return_elements=ends, name="")
        signature = tf.saved_model.predict_signature_def({input_name: x}, {output_name: y})
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], {"serving_default": signature})
        try:
            builder.save()
        except tf.errors.OpError as error:
            raise UserError(f"{path}: the SavedModel cannot be written: {reason(error)}") from None


def _is_folder(path):
    return path.endswith(("/", os.sep)) or not os.path.splitext(path)[1]


def _is_safetensors(path):
    return os.path.splitext(path)[1].lower() == ".safetensors"


def _named_arrays(variables, path):
    """Convert an untrusted dictionary or list of pairs to {name: float32 array}."""
    pairs = list(variables.items()) if isinstance(variables, dict) else variables
    if not isinstance(pairs, (list, tuple)) or not all(map(_is_named_array, pairs)):
        raise UserError(f"{path}: not a network snapshot: its variables are not (name, array) pairs")
    for name, value in pairs:
        if value.dtype.kind not in "fiu":
            raise UserError(f"{path}: not a network snapshot: variable {printable(name)} is of type {value.dtype}")
    if 4 * sum(value.size for _, value in pairs) > _LARGEST:  # A pickle can repeat an array.
        raise UserError(f"{path}: not a network snapshot: its variables are too large")
    with np.errstate(over="ignore"):
        return {name: np.asarray(value, np.float32) for name, value in pairs}


def _is_named_array(pair):
    """Return whether `pair` is (name, array). It comes first, because NumPy would convert anything to an array."""
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
    return is_pair and isinstance(pair[0], str) and isinstance(pair[1], (np.ndarray, np.generic))
