"""The workers of a distributed run: who they are, by TF_CONFIG, and processes for them on one machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from ..util import UserError, cpu_count

LOCAL_PARENT = "DNNLIB_LOCAL_PARENT"  # Process that started this one as one of several workers of this machine.
_GRACE = 60  # Seconds that workers have to end by themselves once one has failed.


@dataclass(frozen=True)
class Workers:
    """Addresses `host:port` of all workers, and the number of this one. A run of one worker needs no address."""

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def count(self):
        return len(self.addresses)

    @property
    def first(self):
        """True for the worker that owns the run directory, prints and validates."""
        return self.index == 0

    @classmethod
    def from_environment(cls):
        """Those of the variable TF_CONFIG, TensorFlow's convention; a "chief" comes first. Without it, one.

        UserError if it is none of a run of workers.
        """
        text = os.environ.get("TF_CONFIG")
        if not text:
            return cls()
        try:
            config = json.loads(text)
            cluster, task = config["cluster"], config["task"]
            jobs = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
            offset = {"chief": 0, "worker": len(jobs["chief"])}[task["type"]]
            index = int(task["index"])
            if not 0 <= index < len(jobs[task["type"]]):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            example = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
            raise UserError(f"TF_CONFIG: does not name this worker in the form {example}") from None
        return cls.checked(jobs["chief"] + jobs["worker"], offset + index, "TF_CONFIG")

    @classmethod
    def checked(cls, addresses, index, source):
        """UserError naming `source` if these are no workers."""
        for address in addresses:
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise UserError(f"{source}: '{address}' is not host:port")
        if len(set(addresses)) < len(addresses):
            raise UserError(f"{source}: names an address twice")
        if not 0 <= index < len(addresses):
            raise UserError(f"{source}: there is no worker {index} of {len(addresses)}; they count from 0")
        return cls(tuple(addresses), index)

    def to_environment(self):
        """The variables that make a process this worker."""
        task = {"type": "worker", "index": self.index}
        return {"TF_CONFIG": json.dumps({"cluster": {"worker": self.addresses}, "task": task})}

    def name(self, index):
        """`worker 1 (host:port)`, for messages."""
        return f"worker {index} ({self.addresses[index]})"


def configure(addresses=None, task=None, local_workers=None):
    """Makes this process the worker that the options --workers, --task and --local-workers say, through TF_CONFIG.

    With --local-workers it becomes the parent of as many processes that run the same command, and does not return.
    """
    if os.environ.get(LOCAL_PARENT):
        return
    if (addresses is None) != (task is None):
        raise UserError("--workers and --task go together: the addresses of all, and which of them this one is")
    ways = {"TF_CONFIG": os.environ.get("TF_CONFIG"), "--workers": addresses, "--local-workers": local_workers}
    ways = [name for name, value in ways.items() if value]
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} both say who the workers are; leave one out")
    if addresses:
        os.environ.update(Workers.checked(addresses.split(","), task, "--workers").to_environment())
    if local_workers:
        sys.exit(_run_locally(local_workers))


def _run_locally(count):
    """Runs this command as `count` workers on loopback, which share the cores. Returns the exit status.

    The first writes to the console. Of the others there is heard only what one says that fails before the first does.
    """
    cores = cpu_count()
    addresses, environment = _free_addresses(count), {LOCAL_PARENT: str(os.getpid())}
    environment["TF_NUM_INTRAOP_THREADS"] = str(max(1, cores // count))
    environment["TF_NUM_INTEROP_THREADS"] = str(max(2, cores // count))  # A collective may hold one.
    environment |= {name: os.environ[name] for name in environment if name in os.environ and name != LOCAL_PARENT}
    with contextlib.ExitStack() as stack:
        processes, errors = [], [None]
        for index in range(count):
            if index:
                errors.append(stack.enter_context(tempfile.TemporaryFile()))
            own = Workers(addresses, index).to_environment()
            processes.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv],
                    env=os.environ | environment | own,
                    stderr=errors[index],
                    start_new_session=True,  # Ctrl-C reaches them once, by `_pass_on`.
                )
            )
        _pass_on((signal.SIGINT, signal.SIGTERM), processes)
        ended = _wait(processes)
        failed = [index for index in ended if processes[index].returncode]
        if not failed:
            return 0
        for index in failed:
            if index == 0 and processes[0].returncode > 0:  # It has told why.
                break
            if index and _repeat(errors[index]):
                break
        return max([processes[index].returncode for index in failed if processes[index].returncode > 0], default=1)


def _free_addresses(count):
    """Loopback addresses with ports that are free at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def _pass_on(signals, processes):
    def send(number, frame):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    for number in signals:
        signal.signal(number, send)


def _wait(processes):
    """Waits for all, `_GRACE` seconds at most once one has failed. Returns their indices in the order of their ends."""
    ended, deadline, ways_to_end = [], None, ["terminate", "kill"]
    while len(ended) < len(processes):
        for index, process in enumerate(processes):
            if index not in ended and process.poll() is not None:
                ended.append(index)
                deadline = deadline or (process.returncode and time.monotonic() + _GRACE)
        if deadline and time.monotonic() > deadline and ways_to_end:
            way, deadline = ways_to_end.pop(0), time.monotonic() + _GRACE
            for process in processes:
                getattr(process, way)()
        time.sleep(0.1)
    return ended


def _repeat(file):
    """Copies what a worker wrote to its stderr. Returns whether that was anything."""
    file.seek(0)
    text = file.read().decode(errors="replace")
    sys.stderr.write(text)
    return bool(text)
