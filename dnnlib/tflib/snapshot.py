"""Networks on disk: snapshots, in two formats, told by the suffix.

`.safetensors` holds the variables as float32 arrays and, in its metadata, as JSON: version 2, name, static_kwargs and
build_func_name. Any other suffix means the pickle of a `Network`, whose state is a dictionary of these fields,
build_module_src, and variables, a list of (local name, float32 array). The source text is kept for people to read. Both
formats may also hold nothing but named arrays.

Nothing in a snapshot is executed: whoever loads one builds the network from its name with code of their own.
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
_OTHER_FILES = {  # By their first bytes.
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
_LARGEST = 1 << 30  # Bytes: hundreds of times the networks here. A sparse file can claim any size at no cost.


def save_snapshot(network, path):
    """Writes the snapshot of `network` with its values."""
    if _is_safetensors(path):
        state = network.__getstate__()
        _write_safetensors(path, dict(state["variables"]), {field: json.dumps(state[field]) for field in _FIELDS})
    else:
        safe_pickle.dump(path, network)


def save_arrays(arrays, path):
    """Writes a snapshot of nothing but {name: array}."""
    if _is_safetensors(path):
        _write_safetensors(path, arrays)
    else:
        safe_pickle.dump(path, arrays)


def load_snapshot(path):
    """Reads a snapshot -> EasyDict of its state, `variables` as {local name: float32 array}.

    path: a file, or the directory of a complete run, for its final network.
    A file of nothing but arrays has no other state. Runs no code of the file's. UserError if it is not a snapshot, or
    holds anything but names and arrays; it says what a file of a known other kind is.
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
    if state.get("version", 2) != 2:
        raise UserError(f"{path}: a snapshot of version {printable(state['version'])}; only version 2 is known")
    return EasyDict(state, variables=_named_arrays(state.get("variables"), path))


def check_export(path):
    """UserError if `export` could not write to `path`."""
    suffix = os.path.splitext(path)[1]
    if _is_folder(path):
        check_output_folder(path)
    elif suffix.lower() not in (".pickle", ".pkl", ".safetensors"):
        raise UserError(f"{path}: no snapshot has the suffix '{suffix}'; use .pickle or .safetensors, or end in /")
    else:
        check_output(path)


def export(network, path, input_name, output_name, arrays=None):
    """Writes `network` as `path` says: a snapshot, or a SavedModel.

    The suffixes .pickle, .pkl and .safetensors are those of snapshots; one holds only `arrays` where these are given. A
    path without a suffix, or with a slash at its end, is the folder of a SavedModel: TensorFlow is all it needs. Its
    signature `serving_default` is `input_name` -> `output_name`, in the shapes of the network's own input and output.
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
    """What a file that is not a snapshot is instead, in words. None if that is not known."""
    with open(path, "rb") as f:
        start = f.read(256)
    if start[8:10] == b'{"' and not _is_safetensors(path):
        return "a safetensors file of another suffix"
    if start.startswith(b"PK") and b"data.pkl" in start:
        return "a PyTorch file"
    return next((kind for magic, kind in _OTHER_FILES.items() if start.startswith(magic)), None)


class _State:
    """Stands in for `Network` while its pickle is read, and keeps the state only."""

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
    """The library holds the sizes in the header against the file's before it makes any array."""
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            metadata = f.metadata() or {}
            state = {field: json.loads(metadata[field]) for field in _FIELDS if field in metadata}
            return state | {"variables": {name: f.get_tensor(name) for name in f.keys()}}  # noqa: SIM118 - not a dict.
    except Exception as error:  # The library raises errors of several kinds at a damaged file.
        what = f"not a safetensors file, truncated or damaged ({words_of(error)})"
        raise UserError(f"{path}: {what}") from None


def _write_safetensors(path, arrays, metadata=None):
    # The library writes memory as it lies: an array in another order than C's would come back scrambled.
    arrays = {name: np.asarray(value, np.float32, order="C") for name, value in arrays.items()}
    with open_atomic(path, "wb") as f:
        f.write(safetensors.numpy.save(arrays, metadata))


def _write_saved_model(network, path, input_name, output_name):
    ends = [network.input.name, network.output.name]
    session = network.session
    graph_def = tf.graph_util.convert_variables_to_constants(  # Leaves what leads to the output, and nothing else.
        session, session.graph.as_graph_def(), [network.output.op.name]
    )
    for node in graph_def.node:
        node.attr.pop("_gradient_op_type", None)  # Of gradients that are not registered where there is only TensorFlow.
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
    return path.endswith(os.sep) or not os.path.splitext(path)[1]


def _is_safetensors(path):
    return os.path.splitext(path)[1].lower() == ".safetensors"


def _named_arrays(variables, path):
    """A dictionary or list of pairs from a stranger -> {name: float32 array}."""
    pairs = list(variables.items()) if isinstance(variables, dict) else variables
    if not isinstance(pairs, (list, tuple)) or not all(map(_is_named_array, pairs)):
        raise UserError(f"{path}: not a network snapshot: its variables are not (name, array) pairs")
    for name, value in pairs:
        if value.dtype.kind not in "fiu":
            raise UserError(f"{path}: not a network snapshot: variable {printable(name)} is of type {value.dtype}")
    if 4 * sum(value.size for _, value in pairs) > _LARGEST:  # One array in a pickle can be many variables.
        raise UserError(f"{path}: not a network snapshot: its variables are too large")
    with np.errstate(over="ignore"):
        return {name: np.asarray(value, np.float32) for name, value in pairs}


def _is_named_array(pair):
    """Looked at before anything else, for NumPy makes arrays of what claims to be some, at any cost."""
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
    return is_pair and isinstance(pair[0], str) and isinstance(pair[1], (np.ndarray, np.generic))
