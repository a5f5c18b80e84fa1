"""Runs as SLURM jobs, with the optional package submitit (https://github.com/facebookincubator/submitit).

A job has one task per node. The task starts a worker of the run as a separate process from the copy of the program in
the run directory, so that later changes of the program do not affect waiting jobs. A job that is preempted or runs out
of time stops at a checkpoint, is queued again and continues from there.
"""

import json
import os
import subprocess
import sys
import time

from ..util import UserError, require

_TIME_OUTS = 1000  # Maximum number of times that a job that ran out of time is queued again.
_SECONDS_TO_STOP = 75  # For an iteration and a checkpoint; submitit has SLURM give notice of 90 seconds.
# Runs `python -m dnnlib.submission` from the folder that is the first argument. SLURM notifies all processes of a job
# when its time is out; workers ignore this, and `Task.checkpoint` stops them.
_RUN = (
    "import runpy, signal, sys; signal.signal(signal.SIGUSR2, signal.SIG_IGN); sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('dnnlib.submission', run_name='__main__', alter_sys=True)"
)


def check(settings):
    """Raise UserError if no job can be made from `settings`, the arguments of `executor_parameters`."""
    require("submitit", "--submit slurm", "-e '.[slurm]'")
    executor_parameters(**settings)


def submit(config):
    """Submit a job for the run in `config.run_dir`; `config.slurm` has the arguments of `executor_parameters`."""
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
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # The job starts without this project in its path.
        job = executor.submit(Task(os.path.abspath(config.run_dir)))
    except (RuntimeError, ValueError, AssertionError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"--submit slurm: {' '.join(str(error).split())}") from None
    print(f"dnnlib: Submitted job {job.job_id} for {config.run_dir}; its output: {job.paths.stdout}")
    return job


def executor_parameters(nodes, minutes, others):
    """Return (submitit's name of the engine, parameters for its AutoExecutor).

    Args:
        nodes: Number of nodes.
        minutes: Time limit of the job.
        others: {name: text}. cpus_per_task, gpus_per_node and mem_gb are parameters of submitit. cluster=local runs the
            tasks of all nodes on this machine, as a trial. All other names are options of sbatch.
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
    """Callable that a job runs in each of its tasks."""

    def __init__(self, run_dir):
        self.run_dir, self._process = run_dir, None

    def __call__(self):
        import submitit

        env = submitit.JobEnvironment()
        environment = os.environ | {"TF_CONFIG": json.dumps(tf_config(env))}
        words = [sys.executable, "-c", _RUN, os.path.join(self.run_dir, "src"), "--go-on", self.run_dir]
        self._process = subprocess.Popen(words, env=environment, start_new_session=True)
        while self._process.poll() is None:  # Not wait(), whose lock a signal handler would meet.
            time.sleep(0.2)
        if self._process.returncode and env.global_rank == 0:
            raise RuntimeError(f"the run failed with status {self._process.returncode}; see {self.run_dir}/log.txt")

    def checkpoint(self):
        """Stop all workers at a checkpoint; submitit calls this in the first task before it queues the job again."""
        import submitit

        if self._process:
            self._process.terminate()
            deadline = time.monotonic() + _SECONDS_TO_STOP
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(Task(self.run_dir))


def tf_config(env):
    """Return TF_CONFIG for the task of the submitit.JobEnvironment `env`.

    The job number determines the ports. Those of the tasks differ, because nodes may share a machine.
    """
    port = 20000 + 64 * int("".join(filter(str.isdecimal, env.job_id))) % 10000
    hosts = ["127.0.0.1"] if env.num_nodes == 1 else env.hostnames
    workers = [f"{hosts[rank * len(hosts) // env.num_tasks]}:{port + rank}" for rank in range(env.num_tasks)]
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": env.global_rank}}
