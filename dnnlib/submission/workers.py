"""The workers of a distributed run: their addresses, and processes for them on one machine."""

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

LOCAL_PARENT = "DNNLIB_LOCAL_PARENT"  # Id of the process that started the local workers.
_GRACE = 60  # Seconds that workers have to end by themselves after one has failed.


@dataclass(frozen=True)
class Workers:
    """Addresses `host:port` of all workers and the index of this one. A single worker needs no address."""

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def count(self):
        return len(self.addresses)

    @property
    def first(self):
        """Whether this is the chief, which owns the run directory, prints and validates."""
        return self.index == 0

    @classmethod
    def from_environment(cls):
        """Return the workers named in the variable TF_CONFIG, the convention of TensorFlow; without it, a single one.

        A job "chief" comes before the job "worker".

        Raises:
            UserError: TF_CONFIG does not name workers.
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
        """Return the workers; raise UserError that names `source` if the addresses or the index are wrong."""
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
        """Return the environment variables that make a process this worker."""
        task = {"type": "worker", "index": self.index}
        return {"TF_CONFIG": json.dumps({"cluster": {"worker": self.addresses}, "task": task})}

    def name(self, index):
        """Return the name of a worker for messages: `worker 1 (host:port)`."""
        return f"worker {index} ({self.addresses[index]})"


def configure(addresses=None, task=None, local_workers=None):
    """Set TF_CONFIG from the options --workers, --task and --local-workers.

    With --local-workers, this process starts that many processes of the same command, and exits after them.
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
    """Run this command as `count` workers on this machine, which share the cores; return the exit status.

    The first worker writes to the console. Errors of the others are printed only if they fail before the first does.
    """
    cores = cpu_count()
    addresses, environment = _free_addresses(count), {LOCAL_PARENT: str(os.getpid())}
    environment["TF_NUM_INTRAOP_THREADS"] = str(max(1, cores // count))
    environment["TF_NUM_INTEROP_THREADS"] = str(max(2, cores // count))  # A collective operation may block one thread.
    environment |= {name: os.environ[name] for name in environment if name in os.environ and name != LOCAL_PARENT}
    with contextlib.ExitStack() as stack:
        processes = []
        errors = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count))]
        for index in range(count):
            own = Workers(addresses, index).to_environment()
            processes.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv],
                    env=os.environ | environment | own,
                    stderr=errors[index],
                    start_new_session=True,  # Ctrl-C reaches the workers only through `_pass_on`.
                )
            )
        _pass_on((signal.SIGINT, signal.SIGTERM), processes)
        ended = _wait(processes)
        failed = [index for index in ended if processes[index].returncode]
        if not failed:
            return 0
        for index in failed:
            if index == 0 and processes[0].returncode > 0:  # The first worker has printed why.
                break
            if index and _repeat(errors[index]):
                break
        return max([processes[index].returncode for index in failed if processes[index].returncode > 0], default=1)


def _free_addresses(count):
    """Return loopback addresses with ports that are free at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def _pass_on(signals, processes):
    def send(number, frame):
        for process in processes:
            if process.poll() is None and sys.platform != "win32":  # Windows sends Ctrl-C to all of them.
                process.send_signal(number)

    for number in signals:
        signal.signal(number, send)


def _wait(processes):
    """Wait for all processes, at most `_GRACE` seconds after a failure; return their indices in order of their ends."""
    ended, deadline, ways_to_end = [], None, ["terminate", "kill"]
    while len(ended) < len(processes):
        for index, process in enumerate(processes):
            if index not in ended and process.poll() is not None:
                ended.append(index)
                if process.returncode and deadline is None:
                    deadline = time.monotonic() + _GRACE
        if deadline and time.monotonic() > deadline and ways_to_end:
            way, deadline = ways_to_end.pop(0), time.monotonic() + _GRACE
            for process in processes:
                getattr(process, way)()
        time.sleep(0.1)
    return ended


def _repeat(file):
    """Print what a worker wrote to its stderr; return whether it wrote anything."""
    file.seek(0)
    text = file.read().decode(errors="replace")
    sys.stderr.write(text)
    return bool(text)
