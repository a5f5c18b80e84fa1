"""A network: the function that builds it, its variables, and its snapshot on disk.

A snapshot is the pickle of a `Network`, whose state is a dictionary: version 2, name, static_kwargs, build_module_src,
build_func_name, and variables, a list of (local name, float32 array). The source text is kept for people to read. It is
never executed: whoever loads a snapshot builds the network from its name with code of their own.
"""

import inspect
import sys

import numpy as np

from .. import safe_pickle
from ..util import EasyDict, UserError
from .tfutil import tf

_STATE_FIELDS = {
    "version": int,
    "name": str,
    "static_kwargs": dict,
    "build_module_src": str,
    "build_func_name": str,
    "variables": list,
}


class Network:
    """`build_func(x, dtype, **static_kwargs)` -> output tensor, called under the variable scope `name`.

    dtype: of the arithmetic, which is not part of a snapshot.
    input: placeholder of `input_shape`, output: the network's output for it, vars: {local name: variable}.
    """

    def __init__(self, name, build_func, input_shape, dtype, **static_kwargs):
        self.name, self.build_func, self.dtype, self.static_kwargs = name, build_func, dtype, static_kwargs
        self.input = tf.placeholder(tf.float32, input_shape, name="input")
        self.output = self.get_output_for(self.input)
        prefix = name + "/"
        variables = tf.global_variables(scope=prefix)
        self.vars = {v.op.name[len(prefix) :]: v for v in variables}
        with tf.name_scope("set_values"):
            self._new_values = {k: tf.placeholder(tf.float32, v.shape) for k, v in self.vars.items()}
            self._assign = tf.group([v.assign(self._new_values[k]) for k, v in self.vars.items()])

    def get_output_for(self, x):
        """The network applied to the tensor `x`; it shares its variables with every other use."""
        with tf.variable_scope(self.name, reuse=tf.AUTO_REUSE):
            return self.build_func(x, self.dtype, **self.static_kwargs)

    def run(self, x):
        """The network applied to the array `x`, in the default session."""
        return tf.get_default_session().run(self.output, {self.input: x})

    def get_values(self):
        """{local name: float32 array}, from the default session."""
        return tf.get_default_session().run(self.vars)

    def set_values(self, values, source):
        """Assigns {local name: array} in the default session. UserError naming `source` if they do not fit."""
        missing, extra = sorted(self.vars.keys() - values.keys()), sorted(values.keys() - self.vars.keys())
        if missing or extra:
            differences = [f"lacks {', '.join(missing[:3])}"] * bool(missing) + [f"has {', '.join(extra[:3])}"] * bool(
                extra
            )
            raise UserError(f"{source}: a snapshot of another network: it {' and '.join(differences)}")
        for name, variable in self.vars.items():
            if values[name].shape != tuple(variable.shape):
                raise UserError(
                    f"{source}: a snapshot of another network: {name} is {list(values[name].shape)} there, "
                    f"{list(variable.shape)} here"
                )
        tf.get_default_session().run(self._assign, {self._new_values[k]: values[k] for k in self.vars})

    def __getstate__(self):
        return {
            "version": 2,
            "name": self.name,
            "static_kwargs": dict(self.static_kwargs),
            "build_module_src": inspect.getsource(sys.modules[self.build_func.__module__]),
            "build_func_name": self.build_func.__name__,
            "variables": list(self.get_values().items()),
        }

    def __setstate__(self, state):
        raise UserError("a Network is loaded with dnnlib.tflib.load_snapshot, not by unpickling")


class _State:
    """Stands in for `Network` while its pickle is read, and keeps the state only."""

    def __setstate__(self, state):
        self.state = state


def save_snapshot(network, path):
    """Writes the snapshot of `network` with its values in the default session."""
    safe_pickle.dump(path, network)


def load_snapshot(path):
    """Reads a snapshot -> EasyDict of its state, `variables` as {local name: float32 array}.

    Runs no code of the file's. UserError if it is missing, not a snapshot, or holds anything but names and arrays.
    """
    admitted = {("dnnlib.tflib.network", "Network"): _State, ("dnnlib.util", "EasyDict"): EasyDict}
    loaded = safe_pickle.load(path, admitted)
    state = getattr(loaded, "state", None)
    if not isinstance(loaded, _State) or not isinstance(state, dict):
        raise UserError(f"{path}: not a network snapshot")
    for field, kind in _STATE_FIELDS.items():
        if not isinstance(state.get(field), kind):
            raise UserError(f"{path}: not a network snapshot: its {field} is missing or wrong")
    if state["version"] != 2:
        raise UserError(f"{path}: a snapshot of version {state['version']}; only version 2 is known")
    return EasyDict(state, variables=_named_arrays(state["variables"], path))


def _named_arrays(variables, path):
    try:
        arrays = {name: np.asarray(value) for name, value in variables}
    except (TypeError, ValueError):
        raise UserError(f"{path}: not a network snapshot: its variables are not (name, array) pairs") from None
    for name, value in arrays.items():
        if value.dtype.kind not in "fiu":
            raise UserError(f"{path}: not a network snapshot: variable {name} is of type {value.dtype}")
    return {name: value.astype(np.float32) for name, value in arrays.items()}
