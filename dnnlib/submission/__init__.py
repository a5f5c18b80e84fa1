"""Submission of runs: a numbered directory holds what is needed to follow, resume and repeat a run."""

from .resume import final_network, newest_checkpoint
from .run_context import RunContext
from .settings import SubmitConfig, format_settings, load_submit_config
from .submit import SOURCE_ROOT, rehearse, resume_run, submit_run
