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


def shard_numbers(minibatch_size, start, stop, shard):
    """Return a tf.data.Dataset of the numbers of a worker's elements in the minibatches start..stop-1.

    Minibatch i consists of minibatch_size elements from number i * minibatch_size on. The shard of worker w of W is the
    n = minibatch_size / W elements from number i * minibatch_size + w * n on.

    Args:
        shard: (w, W).
    """
    from .tflib import tf

    worker, count = shard
    size = minibatch_size // count
    starts = tf.data.Dataset.range(start * minibatch_size + worker * size, stop * minibatch_size, minibatch_size)
    return starts.flat_map(lambda n: tf.data.Dataset.range(n, n + size))
