"""The part of every minibatch that a worker computes."""

from .tfutil import tf


def shard_numbers(minibatch_size, start, stop, shard):
    """Return a tf.data.Dataset of the numbers of a worker's elements in the minibatches start..stop-1.

    Minibatch i consists of minibatch_size elements from number i * minibatch_size on. The shard of worker w of W is the
    n = minibatch_size / W elements from number i * minibatch_size + w * n on.

    Args:
        shard: (w, W).
    """
    worker, count = shard
    size = minibatch_size // count
    starts = tf.data.Dataset.range(start * minibatch_size + worker * size, stop * minibatch_size, minibatch_size)
    return starts.flat_map(lambda n: tf.data.Dataset.range(n, n + size))
