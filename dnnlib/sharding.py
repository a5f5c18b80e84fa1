"""How a minibatch is split over workers, devices and microbatches."""

from .util import UserError


def split_minibatch(minibatch_size, workers, gpus=1, microbatches=1):
    """Return the number of microbatches per device.

    Args:
        minibatch_size: Number of elements of a minibatch of all workers.
        workers: Number of workers.
        gpus: Number of devices of each worker.
        microbatches: Minimum number of microbatches per minibatch, over all devices.

    Raises:
        UserError: The minibatch cannot be split evenly.
    """
    if minibatch_size % workers:
        raise UserError(f"--minibatch-size {minibatch_size} cannot be split evenly over {workers} workers")
    if minibatch_size % (workers * gpus):
        of = f" of each of {workers} workers" if workers > 1 else ""
        raise UserError(f"--minibatch-size {minibatch_size} cannot be split evenly over {gpus} GPUs{of}")
    parts = -(-microbatches // (workers * gpus))
    if minibatch_size % (workers * gpus * parts):
        raise UserError(
            f"--minibatch-size {minibatch_size} cannot be split evenly into {workers * gpus * parts} --microbatches"
        )
    return parts
