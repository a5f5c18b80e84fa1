"""Submission and run framework: numbered run directories, logging, run context.

`dnnlib.tflib` holds the TensorFlow plumbing. It is not imported here, so that `import dnnlib` is fast.
"""

from .submission import RunContext, SubmitConfig, format_settings, submit_run
from .util import EasyDict, Stopped, UserError, cli_main, format_time, open_atomic
