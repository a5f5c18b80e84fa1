"""Poisson variates for images, which have few levels, faster than one by one."""

import numpy as np

_MAX_TABLE = 256  # Photons in white up to which inverting tables is faster than NumPy's Poisson variates.


def poisson_counts(levels, white, rng):
    """Photon counts: uint8 levels of any shape -> float32 Poisson variates of mean white * level / 255.

    A level is one of 256, so for small means tables of the distribution function are inverted, and a guide table starts
    the search (Chen and Asau 1974). That is exact up to the 24 bits of the uniform variates, and takes a third of the
    time of NumPy's variates. Tables of large means take longer than these.
    """
    if white > _MAX_TABLE:
        return rng.poisson(levels * (white / 255)).astype(np.float32)
    levels, shape = levels.ravel(), levels.shape
    occurs = np.bincount(levels, minlength=256) > 0
    rows, rank = np.count_nonzero(occurs), np.cumsum(occurs) - 1
    mean = white / 255 * np.flatnonzero(occurs)[:, None]
    counts = int(white + 8 * np.sqrt(white)) + 12  # P[n > counts] < 1e-13.
    ratios = np.concatenate([np.exp(-mean), mean / np.arange(1, counts)], axis=1)
    below = np.cumsum(np.cumprod(ratios, axis=1), axis=1).astype(np.float32)  # P[n <= count]
    below[:, -1] = 1.5  # Ends every search.
    cells = 64 if levels.size > 1 << 16 else 16
    cell = np.arange(rows)[:, None] * (cells + 1) + np.ceil(np.minimum(below, 1) * cells).astype(np.int64)
    guide = np.cumsum(np.bincount(cell.ravel(), minlength=rows * (cells + 1)).reshape(rows, -1), axis=1)
    guide = (guide + np.arange(rows)[:, None] * counts).astype(np.int32).ravel()  # Where to begin, in `table`.

    # The mode of `take` that does not check its index, which would cost more than all the rest.
    uniform, table = rng.random(levels.size, dtype=np.float32), below.ravel()
    rank = rank.astype(np.int32)
    found = guide[np.take(rank * (cells + 1), levels, mode="clip") + (uniform * cells).astype(np.int32)]
    search = np.flatnonzero(uniform >= table[found])
    while search.size:
        found[search] += 1
        search = search[uniform[search] >= table[found[search]]]
    return (found - np.take(rank * counts, levels, mode="clip")).astype(np.float32).reshape(shape)
