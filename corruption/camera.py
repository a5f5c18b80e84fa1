"""Photographs as a digital camera takes them: the same scene without noise, and in noisy shots.

An 8-bit sRGB image is taken back to what a sensor would have measured, noise is added there, and the camera's
processing follows (Brooks et al. 2019, sections 3.1 to 3.6, from which all constants without another source are):

1. The image is enlarged: a camera's pixels are not as sharp as those of a photograph that was made smaller.
2. Inverse curve, inverse colour matrix, inverse white balance, which never clips highlights.
3. Bayer mosaic m. Noise: m + n, n ~ N(0, shot m + read), clipped at 1, where the sensor is full (Foi et al. 2008).
4. White balance, clipping at 1, demosaicing, colour matrix, clipping, curve.
5. The camera's noise reduction, modelled by what it does to noise: brightness and colour of the noise are blurred.
6. 8 bits, resampling to the size of the image, JPEG.

References:
    Brooks et al., Unprocessing Images for Learned Raw Denoising, CVPR 2019.
    Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, IEEE TIP 2008.
    Plötz and Roth, Benchmarking Denoising Algorithms with Real Photographs, CVPR 2017.
    Malvar et al., High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color Images, ICASSP 2004.
    Hamilton and Adams, Adaptive Color Plane Interpolation in Single Sensor Color Electronic Camera, US 5,629,734, 1997.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

# From XYZ to the colours of four cameras, and from linear sRGB to XYZ (D65).
_XYZ_TO_CAMERAS = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CURVE_STEPS = 4096  # The curve is a table over the square root of linear light.
DEMOSAICING = ("bilinear", "malvar", "hamilton-adams")


class Camera(NamedTuple):
    """A camera and its settings. The defaults are those of validation."""

    matrix_weights: tuple = (1.0, 1.0, 1.0, 1.0)  # The colour matrix is the mean of four cameras' with these weights.
    gains: tuple = (2.7, 1.25, 2.1)  # White balance and exposure: factors of red, green and blue.
    shoulder: float = 2.0  # k of the curve k x / (1 + (k - 1) x) of linear light, which compresses highlights.
    contrast: float = 0.5  # Part of an S-shaped curve, 3 v^2 - 2 v^3, over the curve of sRGB.
    log_read: float = 1.2  # ln(variance of read noise) - 2.18 ln(shot).
    red: tuple = (0, 0)  # Row and column of the first red pixel of the mosaic, each 0 or 1.
    demosaicing: str = "hamilton-adams"
    enlargement: float = 1.0  # Of the scene on the sensor, about its centre.
    scale: float = 1.0  # Side of the final image / side of the sensor.
    luma_blur: float = 0.5  # Standard deviations in pixels of the blur of the noise's brightness and colour.
    chroma_blur: float = 1.5
    quality: int | None = 95  # Of JPEG; None: the image is not compressed.
    subsampling: str = "4:4:4"  # Of JPEG: "4:2:0" stores colour at half the resolution.


def draw(rng):
    """Draw a random camera."""
    exposure = 1 / min(rng.normal(0.8, 0.1), 1)
    return Camera(
        matrix_weights=tuple(rng.uniform(1e-8, 1, 4)),
        gains=(exposure * rng.uniform(1.9, 2.4), exposure, exposure * rng.uniform(1.5, 1.9)),
        shoulder=rng.uniform(1, 3),
        contrast=rng.uniform(0, 1),
        log_read=rng.normal(1.2, 0.26),
        red=tuple(rng.integers(2, size=2)),
        demosaicing=DEMOSAICING[rng.integers(len(DEMOSAICING))],
        enlargement=np.exp(rng.uniform(*np.log((1.5, 6.0)))),
        scale=rng.uniform(0.7, 1.0) if rng.random() < 0.5 else 1.0,
        luma_blur=rng.uniform(0.0, 1.2),
        chroma_blur=rng.uniform(1.0, 6.0),
        quality=int(rng.integers(65, 100, endpoint=True)) if rng.random() < 7 / 8 else None,
        subsampling="4:2:0" if rng.random() < 2 / 3 else "4:4:4",
    )


def render(camera, pixels, log_shot, rngs):
    """Take an image of a scene without noise, and noisy shots of it.

    pixels: the scene, uint8 [3, H, W]; log_shot: log10 of `shot`; rngs: a NumPy generator for the noise of each shot.
    Returns uint8 [3, H, W] of each: the image without noise and JPEG, then the shots.
    """
    size = pixels.shape[1:]
    curve, inverse_curve = _curves(camera.shoulder, camera.contrast)
    to_camera = _colour_matrix(camera.matrix_weights)
    from_camera = np.linalg.inv(to_camera)
    gains = np.array(camera.gains, np.float32)[:, None, None]
    scene = _resize(pixels, [round(length / camera.scale) for length in size], camera.enlargement)
    mosaic = _mosaic(_unbalance(_mix(to_camera, inverse_curve[scene]), gains), camera.red)
    mosaic_gains = _mosaic(np.broadcast_to(gains, scene.shape), camera.red)

    def develop(mosaic):
        balanced = np.minimum(np.minimum(mosaic, 1) * mosaic_gains, 1)  # The sensor is full at 1.
        image = demosaic(balanced, camera.red, camera.demosaicing)
        return _apply(curve, _mix(from_camera, image))

    def write(image):
        return _resize(np.clip(image + 0.5, 0, 255).astype(np.uint8), size)

    clean = develop(mosaic)
    images = [write(clean)]
    for rng in rngs:
        noise = develop(_add_noise(mosaic, 10.0**log_shot, camera.log_read, rng)) - clean
        shot = write(clean + _reduce_noise(noise, camera.luma_blur, camera.chroma_blur))
        images.append(_compress(shot, camera.quality, camera.subsampling))
    return images


def demosaic(mosaic, red, kind):
    """Interpolate a mosaic [H, W] to an image [3, H, W] by one of DEMOSAICING. red: see `Camera`."""
    at = _neighbours(mosaic)
    cross, in_row, in_column, diagonal = _bilinear(at)
    far_in_row, far_in_column = (at(0, -2) + at(0, 2)) / 2, (at(-2, 0) + at(2, 0)) / 2
    if kind == "bilinear":
        green = cross
    elif kind == "malvar":
        far = (far_in_row + far_in_column) / 2
        green = cross + (mosaic - far) / 2
        in_row += (5 * mosaic - 4 * diagonal - 2 * far_in_row + far_in_column) / 8
        in_column += (5 * mosaic - 4 * diagonal - 2 * far_in_column + far_in_row) / 8
        diagonal += (mosaic - far) * 0.75
    else:
        # Green along the direction that changes less. Then the differences of red and blue to green, bilinear.
        across = abs(at(0, -1) - at(0, 1)) + 2 * abs(mosaic - far_in_row)
        down = abs(at(-1, 0) - at(1, 0)) + 2 * abs(mosaic - far_in_column)
        smoother = across < down
        green = np.where(smoother, in_row, in_column) + (mosaic - np.where(smoother, far_in_row, far_in_column)) / 2
        for site in _green_sites(red):
            green[site] = mosaic[site]
        _, *differences = _bilinear(_neighbours(mosaic - green))
        in_row, in_column, diagonal = (green + difference for difference in differences)

    image = np.stack([diagonal, green, diagonal])
    for site in _green_sites(red):
        image[1][site] = mosaic[site]
    for colour, (row, column) in ((0, red), (2, (1 - red[0], 1 - red[1]))):
        image[colour][_site(row, column)] = mosaic[_site(row, column)]
        image[colour][_site(row, 1 - column)] = in_row[_site(row, 1 - column)]
        image[colour][_site(1 - row, column)] = in_column[_site(1 - row, column)]
    return image


def _site(row, column):
    """Index of every second pixel of every second row."""
    return slice(row, None, 2), slice(column, None, 2)


def _green_sites(red):
    return _site(red[0], 1 - red[1]), _site(1 - red[0], red[1])


def _mosaic(image, red):
    """[3, H, W] -> [H, W]: one colour of each pixel, of the Bayer pattern whose first red pixel is at `red`."""
    mosaic = image[1].copy()
    for colour, site in ((0, _site(*red)), (2, _site(1 - red[0], 1 - red[1]))):
        mosaic[site] = image[colour][site]
    return mosaic


def _neighbours(mosaic):
    """Function of (down, right), each -2 to 2: the mosaic's pixels that far away, mirrored at the border."""
    padded = np.pad(mosaic, 2, mode="reflect")
    height, width = mosaic.shape
    return lambda down, right: padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]


def _bilinear(at):
    """Means of neighbours: the four nearest, the two in the row, the two in the column, the four diagonal ones."""
    in_row, in_column = (at(0, -1) + at(0, 1)) / 2, (at(-1, 0) + at(1, 0)) / 2
    diagonal = (at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)) / 4
    return (in_row + in_column) / 2, in_row, in_column, diagonal


def _colour_matrix(weights):
    """From linear sRGB to a camera's colours, float32 [3, 3]; white stays white."""
    matrix = np.average(_XYZ_TO_CAMERAS, axis=0, weights=weights) @ _RGB_TO_XYZ
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def _mix(matrix, image):
    """Multiply the colours of [3, H, W] by a matrix. BLAS would start threads, which costs more."""
    return sum(column[:, None, None] * plane for column, plane in zip(matrix.T, image))


def _unbalance(image, gains):
    """Divide by the gains; the brighter a pixel above 0.9 is, the less, so that white stays 1 (section 3.4)."""
    excess = np.maximum(image.mean(axis=0) - np.float32(0.9), 0) * np.float32(10)
    mask = np.minimum(excess * excess, 1)
    return image * np.maximum(mask + (1 - mask) / gains, 1 / gains)


def _add_noise(mosaic, shot, log_read, rng):
    """Add shot and read noise to a mosaic (section 3.1)."""
    read = np.exp(2.18 * np.log(shot) + log_read)
    deviation = np.sqrt(np.float32(shot) * np.maximum(mosaic, 0) + np.float32(read))
    return mosaic + deviation * rng.standard_normal(mosaic.shape, dtype=np.float32)


def _curves(shoulder, contrast):
    """The curve from linear light, a table over its square root, to 0..255, and its inverse, a table over 0..255."""
    linear = np.linspace(0, 1, _CURVE_STEPS) ** 2
    v = shoulder * linear / (1 + (shoulder - 1) * linear)
    v = np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    v = 255 * ((1 - contrast) * v + contrast * (3 - 2 * v) * v * v)
    return v.astype(np.float32), np.interp(np.arange(256), v, linear).astype(np.float32)


def _apply(curve, linear):
    """Linear light, clipped to 0..1, through the table of a curve."""
    steps = np.sqrt(np.clip(linear, 0, 1)) * np.float32(_CURVE_STEPS - 1) + np.float32(0.5)
    return np.take(curve, steps.astype(np.intp), mode="clip")


def _reduce_noise(noise, luma_blur, chroma_blur):
    """Blur the brightness and the colour of noise [3, H, W] by Gaussians of these standard deviations in pixels."""
    luma = _LUMA[0] * noise[0] + _LUMA[1] * noise[1] + _LUMA[2] * noise[2]
    red, blue = (gaussian_filter(noise[k] - luma, chroma_blur, truncate=3) for k in (0, 2))
    green = -(_LUMA[0] * red + _LUMA[2] * blue) / _LUMA[1]  # The luma of colour without brightness is 0.
    return gaussian_filter(luma, luma_blur, truncate=3) + np.stack([red, green, blue])


def _resize(pixels, size, enlargement=1.0):
    """Resize uint8 [3, H, W], or its central part of 1 / enlargement of the side, to (height, width)."""
    _, height, width = pixels.shape
    if (height, width) == tuple(size) and enlargement == 1:
        return pixels
    top, left = (length * (1 - 1 / enlargement) / 2 for length in (height, width))
    image = _to_pillow(pixels)
    image = image.resize(size[::-1], Image.Resampling.BICUBIC, box=(left, top, width - left, height - top))
    return np.asarray(image).transpose(2, 0, 1)


def _compress(pixels, quality, subsampling):
    """uint8 [3, H, W] after JPEG of this quality; as it is if that is None."""
    if quality is None:
        return pixels
    file = io.BytesIO()
    _to_pillow(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def _to_pillow(pixels):
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
