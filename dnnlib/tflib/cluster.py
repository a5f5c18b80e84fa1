"""Several workers that train one network, each with a gRPC server of TensorFlow.

Every worker builds the same graph. The workers average their gradients in collective operations (see `optimizer`).
At the start they compare their settings and take over the state and the weights of the first worker (the chief); at the
end they leave together. With a single worker, all of this does nothing and the graph is that of a single process.
"""

import atexit
import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import threading
import time
import zlib
from typing import Any

import numpy as np

from ..submission.workers import LOCAL_PARENT, Workers
from ..util import Stopped, UserError, printable
from . import sockets
from .tfutil import reason, session_config, tf

_PROBE_INTERVAL = 5  # Seconds between checks that all workers are reachable.
_PROBES = 3  # Number of failed checks in a row after which a worker counts as gone.
_LINGER = 10  # Seconds that a failing worker stays reachable, so that the others see which one was gone first.
_BLOB = 1 << 14  # Bytes of a worker's settings and state.
# Errors of a collective operation when a worker has vanished.
_BROKEN = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnknownError,
)


class Cluster:
    """The workers of this run, from TF_CONFIG (see `submission.workers`), and the TensorFlow server of this one."""

    def __init__(self, submit_config, resume_command):
        """`resume_command`: the command that resumes a run, without the run directory; used in messages."""
        self.workers = Workers.from_environment()
        self.count, self.index, self.first = self.workers.count, self.workers.index, self.workers.first
        self._submit_config, self._resume_command = submit_config, resume_command
        self._run_dir = submit_config.get("run_dir")
        self._keys, self._gone, self._left = 0, None, threading.Event()
        self._session: Any = None
        if self.count > 1:
            self._server = self._start_server()

    def create_session(self, dtype):
        """Create a session on the default graph, which computes in `dtype`."""
        if self.count == 1:
            return tf.Session(config=session_config())
        self._make_stop_flag()
        config = self._config()
        if dtype == tf.bfloat16:  # Servers refuse the fused bfloat16 convolutions that remapping makes.
            rewrite_options = config.graph_options.rewrite_options
            rewrite_options.remapping = rewrite_options.OFF
        self._session = tf.Session(self._server.target, config=config)
        return self._session

    @property
    def resume_command(self):
        """The command that resumes this run."""
        return f"{self._resume_command} {self._run_dir or 'RUN_DIR'}"

    def instance_key(self):
        """Return a number for the next collective operation. All workers create these in the same order."""
        self._keys += 1
        return self._keys

    def agree(self, step, state, unlike=(), **data):
        """Wait for all workers and compare what they were started with.

        Args:
            step, state: Where the run starts, as JSON data; those of the first worker count.
            unlike: Names of settings that may differ.
            data: Further numbers or texts that must be equal.

        Returns:
            (step, state) of the first worker.

        Raises:
            UserError: A worker is missing or was started with other settings or data.
        """
        if self.count == 1:
            return step, state
        self._wait_for_all()
        settings = {k: repr(v) for k, v in self._submit_config.run_func_kwargs.items() if k not in unlike}
        data = {name: str(value) for name, value in data.items()}
        own = {"differ": settings | data | {"TensorFlow": tf.__version__}}
        if self.first:
            own |= {"step": step, "state": state, "run_dir": self._run_dir}
        with self.errors_named():
            all_of_them = self._gather(own)
        first = all_of_them[0]
        for index, other in enumerate(all_of_them):
            for name, value in first["differ"].items():
                if other["differ"].get(name) != value:
                    there, here = (printable(x) for x in (other["differ"].get(name), value))
                    self._leave()
                    raise Stopped(f"{self.workers.name(index)} has {name} {there}, the first worker {here}")
        self._run_dir = first["run_dir"]
        print(f"Sharing the work with {self.count - 1} more workers: {', '.join(self.workers.addresses[1:])}.")
        threading.Thread(target=self._watch, daemon=True).start()
        return first["step"], first["state"]

    def run_step(self, step, feed, reason):
        """Run a training step in which all workers agree on whether to stop after it.

        Args:
            step: What to fetch.
            feed: {placeholder: value}.
            reason: Function that returns why this worker should stop, or None.

        Returns:
            (values of `step`, why all workers stop or None).
        """
        session = tf.get_default_session()
        if self.count == 1:
            return session.run(step, feed), reason()
        values, asked = session.run([step, self._any_asked], feed | {self._asked: float(bool(reason()))})
        return values, (reason() or "another worker") if asked > 0 else None

    def share_variables(self):
        """Return the operation that broadcasts all variables of the default graph from the first worker."""
        if self.count == 1:
            return tf.no_op()
        group, updates = {"group_size": self.count, "group_key": 2, "communication_hint": "auto"}, []
        variables = tf.global_variables()
        with tf.device("/cpu:0"), tf.name_scope("share_variables"):
            if self.first:
                flat = tf.concat([tf.reshape(v, [-1]) for v in variables], axis=0)
                return tf.raw_ops.CollectiveBcastSend(
                    input=flat, shape=flat.shape, instance_key=self.instance_key(), **group
                ).op
            sizes = [int(np.prod(v.shape.as_list())) for v in variables]
            flat = tf.raw_ops.CollectiveBcastRecv(
                T=tf.float32, shape=[sum(sizes)], instance_key=self.instance_key(), **group
            )
            for variable, part in zip(variables, tf.split(flat, sizes)):
                updates.append(variable.assign(tf.reshape(part, variable.shape)))
        return tf.group(updates)

    @contextlib.contextmanager
    def running(self):
        """Context in which the workers train. It names the workers that cause errors; all workers leave it together.

        A worker that left early would break the last collective operation of those that are behind.
        """
        try:
            with self.errors_named():
                yield
            self._leave()
        except Stopped as error:
            self._leave()
            if self.first:
                raise
            raise SystemExit(1) from error  # The first worker prints the message.
        finally:
            self._left.set()

    @contextlib.contextmanager
    def errors_named(self):
        """Context in which an error that a vanished worker caused becomes a UserError that names the worker."""
        try:
            yield
        except Exception as error:
            if self.count == 1 or not (self._gone or isinstance(error, _BROKEN)):
                raise
            line = self._words_for(error)
            self._left.set()
            atexit.register(time.sleep, _LINGER)
            raise UserError(line) from error

    def _words_for(self, error):
        deadline = time.monotonic() + _PROBE_INTERVAL  # The ports of a dying process do not close at once.
        while not self._gone and time.monotonic() < deadline:
            self._gone = self._unreachable()
            time.sleep(0.2)
        if self._gone:
            names = " and ".join(self.workers.name(index) for index in self._gone)
            return f"{names} {'is' if len(self._gone) == 1 else 'are'} gone; go on with: {self.resume_command}"
        return f"the connection to another worker broke ({reason(error)}); go on with: {self.resume_command}"

    def _config(self):
        config = session_config()
        config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        config.device_filters.append(f"/job:worker/task:{self.index}")  # Workers share nothing but collectives.
        return config

    def _make_stop_flag(self):
        """Add the number of workers that were asked to stop to the default graph, as `_any_asked`.

        The operation runs while the step is computed, so that it costs no time.
        """
        with tf.name_scope("stop"), tf.device("/cpu:0"):
            self._asked = tf.placeholder(tf.float32, [])
            self._any_asked = tf.raw_ops.CollectiveReduce(
                input=self._asked,
                group_size=self.count,
                group_key=2,
                instance_key=self.instance_key(),
                merge_op="Add",
                final_op="Id",
                subdiv_offsets=[0],
                communication_hint="ring",
            )

    def _start_server(self):
        address = self.workers.addresses[self.index]
        try:
            server = tf.distribute.Server(
                tf.train.ClusterSpec({"worker": self.workers.addresses}), "worker", self.index, config=self._config()
            )
        except tf.errors.OpError as error:
            raise UserError(f"{address}: cannot listen there: {reason(error)}") from None
        warning = sockets.confine(address)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        return server

    def _wait_for_all(self):
        seconds = self._submit_config.join_seconds
        deadline = time.monotonic() + seconds
        while missing := self._unreachable():
            if time.monotonic() > deadline:
                raise UserError(f"{self.workers.name(missing[0])} has not appeared within {seconds:g} seconds")
            time.sleep(0.5)

    def _unreachable(self):
        """Return the numbers of the workers at whose addresses nothing listens."""
        others = [index for index in range(self.count) if index != self.index]
        with concurrent.futures.ThreadPoolExecutor(min(len(others), 32)) as pool:
            there = pool.map(sockets.listens, [self.workers.addresses[index] for index in others])
            return [index for index, is_there in zip(others, there) if not is_there]

    def _watch(self):
        """Notice vanished workers that cause no error of an operation, such as hosts that were switched off.

        Then close the session, and with it the operation that waits. Also stop this worker if its parent was killed.
        """
        parent, failures = os.environ.get(LOCAL_PARENT), 0
        while not self._left.wait(_PROBE_INTERVAL if not failures else 1):
            gone = self._unreachable()
            failures = failures + 1 if gone else 0
            if failures == _PROBES and not self._left.is_set():
                self._gone = gone
                self._session.close()
                return
            if parent and os.getppid() != int(parent):
                parent = None
                os.kill(os.getpid(), signal.SIGTERM)

    def _leave(self):
        """Wait until all workers have got here. An error means that another worker has left already."""
        if self.count > 1:
            with contextlib.suppress(tf.errors.OpError, RuntimeError):  # RuntimeError: the session was closed.
                self._gather({})
            self._left.set()

    def _gather(self, own):
        """Return the list of the JSON data `own` of all workers."""
        text = json.dumps(own).encode()
        if len(text) > _BLOB:
            raise ValueError(f"{len(text)} bytes of settings and state: more than {_BLOB}")
        blob = np.frombuffer(text.ljust(_BLOB), np.int32)
        with tf.Graph().as_default(), tf.Session(self._server.target, config=self._config()) as session:
            with tf.device("/cpu:0"):
                gathered = tf.raw_ops.CollectiveGather(
                    input=blob[None],
                    group_size=self.count,
                    group_key=2,
                    instance_key=self.instance_key(),
                    shape=[self.count, blob.size],
                    communication_hint="ring",
                )
            self._session = session
            return [json.loads(row.tobytes()) for row in session.run(gathered)]


def checksum(*arrays):
    """Return a checksum of NumPy arrays, including their shapes and types, as text."""
    value = 0
    for array in arrays:
        value = zlib.crc32(repr((array.shape, array.dtype)).encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"
