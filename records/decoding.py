"""Images decoded ahead of their use, in many threads."""

import collections
import concurrent.futures

import numpy as np

import dnnlib
from imaging import rgb_files

_MAX_PIXELS = 32 << 20  # Limit of pixels decoded ahead, about 16 bytes each. A larger image is decoded alone.
_MAX_FILES = 256  # Limit of files decoded ahead.


def decode_ahead(frames, read):
    """Yield (frame, mode as stored, samples [C, H, W] or the error) in order, decoded on all CPU cores.

    Headers are read first, one by one, to limit the number of pixels that are decoded ahead.

    Args:
        frames: Paths of images, or `rgb_files.Frame`s.
        read: Function that returns the samples of a frame.
    """
    pending, in_flight = collections.deque(), 0
    pool = concurrent.futures.ThreadPoolExecutor(dnnlib.util.cpu_count())  # More threads would wait for the GIL.
    try:
        for frame in frames:
            mode, size = _read_header(frame)
            while pending and (in_flight + size > _MAX_PIXELS or len(pending) == _MAX_FILES):
                future, done_size = pending.popleft()
                yield future.result()
                in_flight -= done_size
            pending.append((pool.submit(_decode, frame, mode, read), size))
            in_flight += size
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_header(frame):
    """Return (mode as stored, number of pixels); (None, 0) for a broken file, which `_decode` reports."""
    try:
        mode, (width, height) = rgb_files.read_header(frame)
        return mode, width * height
    except (dnnlib.UserError, OSError):
        return None, 0


def _decode(frame, mode, read):
    try:
        return frame, mode, np.ascontiguousarray(read(frame))  # Copied here, in many threads.
    except (dnnlib.UserError, OSError) as error:
        return frame, mode, error
