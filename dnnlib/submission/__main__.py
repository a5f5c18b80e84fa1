"""`python -m dnnlib.submission RUN_DIR`: repeats the run recorded there, with its settings, as a new run."""

import argparse
import os

from ..util import UserError, cli_main, printable
from . import load_submit_config, submit_run
from .submit import SOURCE_ROOT

_OF_THE_FIRST_RUN = ("run_dir", "run_name", "run_id", "host_name", "user_name", "command")


def main():
    parser = argparse.ArgumentParser(prog="python -m dnnlib.submission", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="run directory, or a submit_config.txt")
    path = parser.parse_args().run_dir
    config = load_submit_config(path)
    function, kwargs = config.pop("run_func_name"), config.pop("run_func_kwargs")
    module = function.rpartition(".")[0]
    if not module.isidentifier() or not os.path.isfile(os.path.join(SOURCE_ROOT, f"{module}.py")):
        raise UserError(f"{path}: {printable(function)} is not a function of this project")  # As a stranger's may say.
    for name in _OF_THE_FIRST_RUN:
        config.pop(name, None)
    submit_run(config, function, **kwargs)


if __name__ == "__main__":
    cli_main(main)
