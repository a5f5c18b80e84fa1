"""`python -m dnnlib.submission RUN_DIR` repeats the run recorded there as a new run with the same settings.

With --go-on it starts or resumes that run itself in its directory, for engines that start a job again.
"""

import os

from ..options import ArgumentParser
from ..util import UserError, cli_main, printable
from . import load_submit_config, submit_run
from .submit import SOURCE_ROOT, go_on

_OF_THE_FIRST_RUN = ("run_dir", "run_name", "run_id", "host_name", "user_name", "command")


def main():
    parser = ArgumentParser(prog="python -m dnnlib.submission", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="run directory, or a submit_config.txt")
    parser.add_argument("--go-on", action="store_true", help="start or resume that run itself, in its directory")
    args = parser.parse_args()
    path = args.run_dir
    config = load_submit_config(path)
    function, kwargs = config.pop("run_func_name"), config.pop("run_func_kwargs")
    module = function.rpartition(".")[0]
    path_of_module = os.path.join(SOURCE_ROOT, *module.split(".")) + ".py"
    if not all(map(str.isidentifier, module.split("."))) or not os.path.isfile(path_of_module):
        raise UserError(f"{path}: {printable(function)} is not a function of this project")  # The file is untrusted.
    if args.go_on:
        go_on(path)
        return
    for name in _OF_THE_FIRST_RUN:
        config.pop(name, None)
    config.submit_target = "LOCAL"
    submit_run(config, function, **kwargs)


if __name__ == "__main__":
    cli_main(main)
