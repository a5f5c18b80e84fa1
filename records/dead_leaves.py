"""Synthetic training images of the dead-leaves model, which need no photographs, licence or download.

Shapes of random size, form and colour fall on top of each other. The visible parts share important statistics with
photographs: objects of all scales that occlude each other, sharp edges between smooth or textured regions, and a power
spectrum that falls with about the square of the frequency.

- The model and its scale-invariant r^-3 law of sizes: Lee, Mumford & Huang, "Occlusion Models for
  Natural Images: A Statistical Study of a Scale-Invariant Dead Leaves Model", IJCV 2001. Networks trained on such
  images: Achddou, Gousseau & Ladjal, "Synthetic Images as a Regularity Prior for Image Restoration Neural Networks",
  SSVM 2021; Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021.
- Colours are drawn on decorrelated axes of log cone responses: Ruderman, Cronin & Chiao, "Statistics of Cone Responses
  to Natural Images: Implications for Visual Coding", JOSA A 1998; cone responses from RGB by the matrix of Reinhard et
  al., "Color Transfer between Images", 2001. The spread of colours is fitted to photographs (BSDS300, training set).
"""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading

import numpy as np
import scipy.fft
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

import dnnlib

SIZE = 320  # Default side in pixels; leaves room for random crops of 256x256.

_SUPERSAMPLING = 2  # Antialiasing: leaves are drawn this many times larger and averaged in linear light.
_COVERAGE = 3.0  # Mean number of leaves over a point; exp(-3) = 5% of the image shows the backdrop.
_TEXTURES = 4  # Texture fields per image; leaves show different parts of them at different strengths.
_MATERIALS = (3, 20)  # Base colours per image; each leaf varies one of them, as leaves of a tree look alike.

_LMS_FROM_RGB = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
# Rows: achromatic, yellow-blue and red-green combinations of log10(L, M, S). Orthonormal: the transpose is the inverse.
_OPPONENT_FROM_LMS = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
_IMAGE_MEAN = np.array([-1.3, 0.14, 0.0])  # Opponent colour of an image: mean over images ...
_IMAGE_STD = np.array([0.35, 0.12, 0.022])  # ... and standard deviation.
_LEAF_STD = np.array([0.62, 0.13, 0.022])  # Standard deviation over the leaves of an image; varies between images.
_NEPER = np.float32(np.log(10) / np.sqrt(3))  # One unit on the achromatic axis as a natural logarithm of light.


def dead_leaves(height, width, rng):
    """Render one image, uint8 [3, height, width] of gamma-encoded RGB, from the NumPy Generator `rng`."""
    h, w = height * _SUPERSAMPLING, width * _SUPERSAMPLING
    centres, radii = _draw_places(h, w, rng)
    leaf = _draw_map(h, w, centres, radii, rng)
    light = _draw_colours(len(radii), rng)[:, leaf] * np.exp(_NEPER * _draw_shading(leaf, centres, radii, rng))
    light = light.reshape(3, height, _SUPERSAMPLING, width, _SUPERSAMPLING).mean(axis=(2, 4))
    softness = rng.uniform(0, 0.45)  # Standard deviation of the blur of lens and demosaicking in pixels.
    light = gaussian_filter(light, (0, softness, softness), mode="nearest")
    white = max(1, np.quantile(light, 0.985))  # Exposure: photographs clip few pixels.
    return (np.clip(light / white, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)


def dead_leaves_images(count, seed, size=SIZE):
    """Yield `count` images, uint8 [3, size, size], rendered on all CPU cores; image k depends only on (seed, k).

    The calling script needs `if __name__ == "__main__":`, because the worker processes import it. Raises UserError if
    a worker is killed.
    """
    workers = min(dnnlib.util.cpu_count(), count // 4)  # Starting a process takes as long as rendering a few images.
    if workers < 2:
        yield from (_render(seed, k, size) for k in range(count))
        return
    context = multiprocessing.get_context("spawn")  # A fork would inherit the locks of TensorFlow's threads.
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker)
    pending = collections.deque()
    try:
        for k in range(count):
            pending.append(pool.submit(_render, seed, k, size))
            if len(pending) >= 4 * workers:  # Bounds memory if the consumer is slower than the workers.
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise dnnlib.UserError("a process that rendered dead leaves was killed; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _render(seed, k, size):
    return dead_leaves(size, size, np.random.default_rng((seed, k)))


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; only the parent handles it.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # Otherwise workers survive a killed parent.
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


def _draw_places(h, w, rng):
    """Draw centres [n, 2] as (x, y) and radii [n] of the leaves, bottom to top; leaf 0 is the backdrop."""
    side, canvas = max(h, w), np.array([w, h])
    r_min = _SUPERSAMPLING * np.exp(rng.uniform(np.log(1.0), np.log(16.0)))  # Some scenes are busy, others calm.
    r_max = max(side * rng.uniform(0.2, 0.6), 2 * r_min)
    grid = np.geomspace(r_min, r_max, 256)
    density = grid**-2  # r^-3 dr on a logarithmic grid.
    around = density * (h + 2 * grid) * (w + 2 * grid)  # Large leaves reach the canvas from farther away.
    covered = np.sum(density * np.pi / 2 * grid**2) / np.sum(around)  # By one leaf; shapes fill half a disc.
    n = 1 + int(_COVERAGE / covered)
    radii = rng.choice(grid, n, p=around / around.sum())
    centres = canvas / 2 + rng.uniform(-1, 1, [n, 2]) * (canvas / 2 + radii[:, None])
    radii[0], centres[0] = side, canvas / 2
    return centres, radii


def _draw_map(h, w, centres, radii, rng):
    """Draw the leaves bottom to top. Returns the number of the topmost leaf at each pixel, int32 [h, w]."""
    n = len(radii)
    shapes = rng.choice(5, n, p=rng.dirichlet([2] * 5))  # Each scene mixes shapes differently.
    outlines = {}
    for shape, draw_outlines in enumerate([_discs, _ellipses, _rectangles, _polygons, _blobs]):
        for corners, of_size in ((12, radii < 12), (48, radii >= 12)):  # Corners of round shapes.
            (chosen,) = np.nonzero((shapes == shape) & of_size)
            x, y = draw_outlines(len(chosen), corners, rng)  # [chosen, corners] each, in the unit circle.
            angle, r = rng.uniform(0, 2 * np.pi, [len(chosen), 1]), radii[chosen, None]
            placed_x = centres[chosen, :1] + r * (x * np.cos(angle) - y * np.sin(angle))
            placed_y = centres[chosen, 1:] + r * (x * np.sin(angle) + y * np.cos(angle))
            points = np.stack([placed_x, placed_y], axis=-1).reshape(len(chosen), 2 * x.shape[1])
            for leaf, outline in zip(chosen.tolist(), points.tolist()):
                outlines[leaf] = outline
    canvas = Image.new("I", (w, h), 0)
    draw = ImageDraw.Draw(canvas)
    for leaf in range(1, n):
        draw.polygon(outlines[leaf], fill=leaf)
    return np.asarray(canvas)


def _discs(n, corners, rng):
    angle = np.tile(np.linspace(0, 2 * np.pi, corners, endpoint=False), [n, 1])
    return np.cos(angle), np.sin(angle)


def _ellipses(n, corners, rng):
    x, y = _discs(n, corners, rng)
    return x, y * rng.uniform(0.3, 0.9, [n, 1])


def _rectangles(n, corners, rng):
    diagonal = rng.uniform(0.1, np.pi / 4, [n, 1])
    x, y = np.cos(diagonal), np.sin(diagonal)
    return x * [-1, 1, 1, -1], y * [-1, -1, 1, 1]


def _polygons(n, corners, rng):
    angle, r = np.sort(rng.uniform(0, 2 * np.pi, [n, 6]), axis=1), rng.uniform(0.5, 1, [n, 6])
    return r * np.cos(angle), r * np.sin(angle)


def _blobs(n, corners, rng):
    x, y = _ellipses(n, corners, rng)
    angle, r = np.linspace(0, 2 * np.pi, corners, endpoint=False), np.full([n, corners], 0.8)
    for wave in (2, 3, 4, 5):
        r += rng.normal(0, 0.3 / wave, [n, 1]) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi, [n, 1]))
    return r.clip(0.2, 1.2) * x, r.clip(0.2, 1.2) * y


def _draw_colours(n, rng):
    """Draw the colours of n leaves, float32 [3, n] of linear RGB."""
    spread = _LEAF_STD * np.exp(rng.normal(0, [0.35, 0.4, 0.4]))
    materials = rng.normal(_IMAGE_MEAN, _IMAGE_STD) + spread * rng.normal(0, 1, [rng.integers(*_MATERIALS), 3])
    opponent = materials[rng.integers(len(materials), size=n)] + spread * rng.normal(0, 0.3, [n, 3])
    rgb = np.linalg.inv(_LMS_FROM_RGB) @ 10 ** (opponent @ _OPPONENT_FROM_LMS).T
    return rgb.clip(1e-3).astype(np.float32)  # Colours outside the RGB gamut are negative.


def _draw_shading(leaf, centres, radii, rng):
    """Draw the light within leaves and over the scene, float32 [h, w] on the achromatic axis."""
    n, (h, w) = len(radii), leaf.shape
    pixels = np.int32(h * w)
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)
    slope = rng.normal(0, 0.25, [2, n]) / radii  # Gradient of each leaf from one side to the other.
    at_zero = (-slope * centres.T).sum(axis=0).astype(np.float32)
    slope_x, slope_y = slope.astype(np.float32)
    shading = slope_x[leaf] * x + slope_y[leaf] * y + at_zero[leaf]

    roughness = 0.16 * np.exp(rng.normal(0, 0.5))
    strength = rng.gamma(1.0, roughness, n).astype(np.float32)
    textures = np.concatenate([_draw_texture(h, w, rng).ravel() for _ in range(_TEXTURES)])
    which, offset = rng.integers(_TEXTURES, size=n, dtype=np.int32), rng.integers(pixels, size=n, dtype=np.int32)
    # Shifting the flat index shifts a periodic field cyclically, except for an invisible step of one row.
    place = (np.arange(pixels, dtype=np.int32).reshape(h, w) + offset[leaf]) % pixels
    shading += strength[leaf] * textures[which[leaf] * pixels + place]

    for _ in range(3):  # Illumination of the scene: slow waves.
        (fx, fy), phase, amplitude = rng.normal(0, 0.6, 2) / max(h, w), rng.random(), rng.normal(0, 0.35)
        wave = np.float32(fx) * x + np.float32(fy) * y + np.float32(phase)
        shading += np.float32(amplitude) * np.cos(np.float32(2 * np.pi) * wave)
    return shading


def _draw_texture(h, w, rng):
    """Draw a Gaussian field, float32 [h, w], with mean 0, standard deviation 1, a grain and an f^-alpha spectrum."""
    alpha, angle, stretch = rng.uniform(0.3, 1.6), rng.uniform(0, np.pi), np.exp(rng.exponential(0.5))
    fy, fx = np.fft.fftfreq(h)[:, None].astype(np.float32), np.fft.rfftfreq(w).astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (c * fx + s * fy) * np.float32(stretch), (c * fy - s * fx) / np.float32(stretch)
    amplitude = np.hypot(along, across).clip(1 / max(h, w)) ** np.float32(-alpha)
    amplitude[0, 0] = 0
    spectrum = scipy.fft.rfft2(rng.standard_normal([h, w], dtype=np.float32)) * amplitude
    field = scipy.fft.irfft2(spectrum, s=(h, w))
    return field / field.std()
