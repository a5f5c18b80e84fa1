"""Submitting a run: a numbered directory with everything needed to follow and to repeat it."""

from .resume import newest_checkpoint
from .run_context import RunContext
from .submit import SOURCE_ROOT, SubmitConfig, format_settings, load_submit_config, resume_run, submit_run
from .workers import split_minibatch

__all__ = [
    "SOURCE_ROOT",
    "RunContext",
    "SubmitConfig",
    "format_settings",
    "load_submit_config",
    "newest_checkpoint",
    "resume_run",
    "split_minibatch",
    "submit_run",
]
