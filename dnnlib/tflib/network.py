"""A network: the function that builds it, and its variables."""

import inspect
import sys

import numpy as np

from ..util import UserError, printable
from .tfutil import tf


class Network:
    """A function that builds a network, with the variables of one instance.

    Attributes:
        input: Placeholder.
        output: Output of the network for `input`.
        vars: {local name: variable}.
        data: What the snapshot says of the data that the network is for: a dictionary of JSON values; empty by default.

    The network keeps the default session of its creation, so any thread can use it while that session is open.
    """

    def __init__(self, name, build_func, input_shape, dtype, scope=None, **static_kwargs):
        """Build the network on the default graph.

        Args:
            name: Name in snapshots.
            build_func: Function (x, dtype, **static_kwargs) that returns the output tensor.
            input_shape: Shape of `input`.
            dtype: Type of the arithmetic, which is not part of a snapshot.
            scope: Variable scope, by default `name`. A second network on the same graph needs another one.
        """
        self.name, self.build_func, self.dtype, self.static_kwargs = name, build_func, dtype, static_kwargs
        self.scope, self.data = scope or name, {}
        self._session = tf.get_default_session()
        self.input = tf.placeholder(tf.float32, input_shape, name="input")
        self.output = self.get_output_for(self.input)
        prefix = self.scope + "/"
        variables = tf.global_variables(scope=prefix)
        self.vars = {v.op.name[len(prefix) :]: v for v in variables}
        with tf.name_scope("set_values"):
            self._new_values = {k: tf.placeholder(tf.float32, v.shape) for k, v in self.vars.items()}
            self._assign = tf.group([v.assign(self._new_values[k]) for k, v in self.vars.items()])

    def get_output_for(self, x):
        """Apply the network to the tensor `x`, with the same variables as every other use."""
        with tf.variable_scope(self.scope, reuse=tf.AUTO_REUSE):
            return self.build_func(x, self.dtype, **self.static_kwargs)

    @property
    def session(self):
        """The session of the network, or the default session if it was created without one."""
        return self._session or tf.get_default_session()

    def run(self, x):
        """Apply the network to the array `x`."""
        return self.session.run(self.output, {self.input: x})

    def get_values(self):
        """Return the variables as {local name: float32 array}."""
        return self.session.run(self.vars)

    def set_values(self, values, source):
        """Assign {local name: array}; raise UserError that names `source` if they do not fit."""
        differences = self._differences(values)
        if differences:
            raise UserError(f"{source}: a snapshot of another network: {'; '.join(differences)}")
        with np.errstate(over="ignore"):
            for name, value in values.items():
                if not np.isfinite(value.astype(np.float32)).all():
                    raise UserError(f"{source}: its variable {name} holds NaN or infinite numbers")
        self.session.run(self._assign, {self._new_values[k]: values[k] for k in self.vars})

    def follow(self, network, decay):
        """Return the operation that updates the EMA of the variables v' of `network`: v <- decay v + (1 - decay) v'."""
        with tf.name_scope("follow"):
            return tf.group([v.assign_sub((1 - decay) * (v - network.vars[name])) for name, v in self.vars.items()])

    def _differences(self, values):
        """Describe how `values` differ from the variables of this network, as a list of texts."""
        here = {name: list(variable.shape) for name, variable in self.vars.items()}
        there = {name: list(value.shape) for name, value in values.items()}
        lists = {
            "it lacks ": sorted(here.keys() - there.keys()),
            "it has ": sorted(there.keys() - here.keys()),
            "": [f"{n} is {there[n]} there, {here[n]} here" for n in here if there.get(n, here[n]) != here[n]],
        }
        return [words + _first_of(items) for words, items in lists.items() if items]

    def __getstate__(self):
        state = {
            "version": 2,
            "name": self.name,
            "static_kwargs": dict(self.static_kwargs),
            "build_module_src": inspect.getsource(sys.modules[self.build_func.__module__]),
            "build_func_name": self.build_func.__name__,
            "variables": list(self.get_values().items()),
        }
        return state | ({"data": self.data} if self.data else {})  # Published snapshots have no such field.

    def __setstate__(self, state):
        raise UserError("a Network is loaded with dnnlib.tflib.load_snapshot, not by unpickling")


def _first_of(items):
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(map(printable, items[:3])) + more
