"""Losses: what a network learns from corrupted targets is the point that minimises the mean loss to all of them.

Each loss is an elementwise function of the error and of the progress of the run, from 0 to 1 (Lehtinen et al. 2018,
sections 2 and 3).
"""

import dnnlib

LOSSES = {
    "l2": lambda error, progress: error * error,  # Finds the mean.
    "l1": lambda error, progress: abs(error),  # Finds the median.
    # Finds the mode: (|error| + 1e-8)^gamma, with gamma from 2 to 0, counts in the end the targets that are not met.
    "annealed": lambda error, progress: (abs(error) + 1e-8) ** (2 * (1 - progress)),
}


def loss_function(name):
    """The loss `name` as a function of error and progress. UserError for an unknown name."""
    if name not in LOSSES:
        raise dnnlib.UserError(f"loss '{name}' is not known; there are {', '.join(LOSSES)}")
    return LOSSES[name]
