"""Settings of a run, and their files in the run directory."""

import ast
import os
import pprint

from .. import safe_pickle
from ..util import EasyDict, UserError, open_atomic

_MAX_SETTINGS = 100_000  # Characters; parsing takes about 500 bytes of memory per character.


class SubmitConfig(EasyDict):
    """What is submitted, and where it runs.

    Attributes:
        run_dir_root: Folder of the numbered run directories; created if missing.
        run_desc: Text after the number in the name of the run directory.
        num_gpus: Number of GPUs of each worker; without GPUs, the CPU is used.
        submit_target: "LOCAL", or "SLURM" to submit a job with the settings `slurm` (see `slurm.submit`).
        resuming: Whether the run continues from a checkpoint.
        join_seconds: Seconds that the workers of a distributed run wait for each other at the start.

    `submit_run` fills in the other fields.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(
            run_dir_root="results", run_desc="", num_gpus=1, submit_target="LOCAL", resuming=False, join_seconds=300
        )
        self.update(*args, **kwargs)


def load_submit_config(path):
    """Read the settings of a run from its directory or its `submit_config.txt`.

    Nothing in the file is executed. Callers must check the function that it names before they call it.

    Raises:
        UserError: The file does not hold the settings of a run.
    """
    if os.path.isdir(path):
        path = os.path.join(path, "submit_config.txt")
    try:
        with open(path, encoding="utf-8") as f:
            settings = ast.literal_eval(f.read(_MAX_SETTINGS))  # A longer text is truncated, and then not valid.
        config = SubmitConfig(**settings)
        config.run_func_name, config.run_func_kwargs = str(config.run_func_name), EasyDict(config.run_func_kwargs)
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        raise UserError(f"{path}: not the settings of a run") from None
    return config


def format_settings(settings, prefix=""):
    """Return nested dictionaries of settings as lines `name = value`, with names joined by dots."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            lines += format_settings(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name} = {value!r}")
    return lines


def write_settings(config):
    """Write the settings of a run to its directory, for people and for `load_submit_config`."""
    plain = _plain(config)
    with open_atomic(os.path.join(config.run_dir, "submit_config.txt")) as f:
        pprint.pprint(plain, stream=f, indent=4, width=160, compact=False, sort_dicts=False)
    with open_atomic(os.path.join(config.run_dir, "config.txt")) as f:
        f.write("\n".join(format_settings(config.run_func_kwargs)) + "\n")
    safe_pickle.dump(os.path.join(config.run_dir, "submit_config.pkl"), plain)


def _plain(value):
    """Convert EasyDicts to dictionaries, so that `ast.literal_eval` reads the value back."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value
