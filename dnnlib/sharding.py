"""How a minibatch is split over workers, devices and microbatches."""

from .util import UserError


def split_minibatch(minibatch_size, workers, gpus=1, microbatches=1):
    """Parts, at least `microbatches` of them in all, for each of `gpus` devices of each worker to compute one by one.

    UserError if that does not come out even.
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
    """tf.data.Dataset of the numbers of a worker's elements in the minibatches start..stop-1.

    Minibatch i has the elements i * minibatch_size to (i + 1) * minibatch_size - 1. Of these worker w of W has the
    n = minibatch_size / W that begin with i * minibatch_size + w * n.

    Args:
        shard: (w, W).
    """
    from .tflib import tf

    worker, count = shard
    size = minibatch_size // count
    starts = tf.data.Dataset.range(start * minibatch_size + worker * size, stop * minibatch_size, minibatch_size)
    return starts.flat_map(lambda n: tf.data.Dataset.range(n, n + size))
