"""Runs as jobs of SLURM, by submitit (https://github.com/facebookincubator/submitit), an optional requirement.

A job has a task on every node, which starts a worker of the run as a process of its own, from the copy of the program
in the run directory: jobs that wait in the queue do not see later changes. Preempted or out of time, the run is stopped
at a checkpoint, queued again, and goes on from there.
"""

import json
import os
import signal
import subprocess
import sys
import time

from ..util import UserError, require

_TIME_OUTS = 1000  # How often a job that ran out of time is queued again.
_SECONDS_TO_STOP = 75  # Of the 90 that SLURM gives by submitit's wish; an iteration, and a checkpoint.
_RUN = (  # From the folder that is the first argument.
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('dnnlib.submission', run_name='__main__', alter_sys=True)"
)


def check(settings):
    """UserError if a job with the `settings` of `submit` could not be made."""
    require("submitit", "--submit slurm", "requirements-slurm.txt")
    executor_parameters(**settings)


def submit(config):
    """Submits a job for the run in `config.run_dir`, as `config.slurm` says; see `executor_parameters`."""
    import cloudpickle
    import submitit

    cluster, parameters = executor_parameters(**config.slurm)
    try:
        executor = submitit.AutoExecutor(
            folder=os.path.join(config.run_dir, "jobs"),
            cluster=cluster,
            slurm_max_num_timeout=_TIME_OUTS,
            local_max_num_timeout=_TIME_OUTS,
        )
        executor.update_parameters(name=config.run_name, **parameters)
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # The job need not find this project.
        job = executor.submit(Task(os.path.abspath(config.run_dir)))
    except (RuntimeError, ValueError, AssertionError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"--submit slurm: {' '.join(str(error).split())}") from None
    print(f"dnnlib: Submitted job {job.job_id} for {config.run_dir}; its output: {job.paths.stdout}")
    return job


def executor_parameters(nodes, minutes, others):
    """(submitit's name of the engine, what its AutoExecutor takes).

    others: {name: text}. Of submitit's own names cpus_per_task, gpus_per_node and mem_gb are known, and `cluster`:
    "local" runs the tasks of all nodes on this machine, to try it; all else are options of sbatch.
    """
    others = dict(others)
    cluster = others.pop("cluster", "slurm")
    parameters = {"nodes": nodes, "tasks_per_node": 1, "timeout_min": minutes}
    if cluster == "local":
        parameters |= {"nodes": 1, "tasks_per_node": nodes}
    for name in {"cpus_per_task", "gpus_per_node", "mem_gb"} & others.keys():
        try:
            parameters[name] = int(others.pop(name))
        except ValueError:
            raise UserError(f"--slurm {name}: has to be a whole number") from None
    if others and cluster == "slurm":
        parameters["slurm_additional_parameters"] = {name: value or True for name, value in others.items()}
    return cluster, parameters


class Task:
    """What a job runs in each of its tasks."""

    def __init__(self, run_dir):
        self.run_dir, self._process = run_dir, None

    def __call__(self):
        import submitit

        env = submitit.JobEnvironment()
        environment = os.environ | {"TF_CONFIG": json.dumps(tf_config(env))}
        words = [sys.executable, "-c", _RUN, os.path.join(self.run_dir, "src"), "--go-on", self.run_dir]
        # SLURM tells all processes of a job that its time is out; who has to know is told by `checkpoint`.
        self._process = subprocess.Popen(words, env=environment, start_new_session=True, preexec_fn=_ignore_notice)
        while self._process.poll() is None:  # Not wait(): a signal would come while it holds a lock.
            time.sleep(0.2)
        if self._process.returncode and env.global_rank == 0:
            raise RuntimeError(f"the run failed with status {self._process.returncode}; see {self.run_dir}/log.txt")

    def checkpoint(self):
        """Called by submitit in the first task, before the job is queued again: stops all workers at a checkpoint."""
        import submitit

        if self._process:
            self._process.terminate()
            deadline = time.monotonic() + _SECONDS_TO_STOP
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(Task(self.run_dir))


def tf_config(env):
    """TF_CONFIG of the task of the submitit.JobEnvironment `env`; the ports follow from the number of the job."""
    port = 20000 + 8 * int("".join(filter(str.isdecimal, env.job_id))) % 10000
    hosts = ["127.0.0.1"] if env.num_nodes == 1 else env.hostnames
    per_host = env.num_tasks // len(hosts)
    workers = [f"{host}:{port + number}" for host in hosts for number in range(per_host)]
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": env.global_rank}}


def _ignore_notice():
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
