"""Make the pictures in docs/images that show what the networks of this folder do: `python networks/picture.py NAME ...`

- networks: parts of two Kodak photographs and of a slice of the MRI validation set;
- real: parts of photographs with real noise, from datasets/real (see networks/README.md);
- grey: parts of greyscale photographs of the set BSD68.

Each row has an image corrupted, restored, clean.
"""

import os

import config
import config_mri
import corruption
import dnnlib
import network
from dnnlib import tflib
from dnnlib.options import ArgumentParser, choice
from dnnlib.tflib import tf
from imaging import images, rgb_files, sheets
from inference import tiling
from inference.compare import compared
from mri import dataset_mri
from mri.model import Model
from networks.spots import REAL

OUT = "docs/images/{}.png"
SIZE = 192  # Side of a part in pixels of the picture.
SLICE = 36


def main():
    """Write the pictures."""
    parser = ArgumentParser(description=__doc__)
    names = f"pictures: {', '.join(PICTURES)}; default: all"
    parser.add_argument("names", nargs="*", type=choice(PICTURES), metavar="NAME", help=names)
    args = parser.parse_args()
    os.chdir(dnnlib.submission.SOURCE_ROOT)
    for name in args.names or PICTURES:
        images.save(OUT.format(name), sheets.labelled_sheet(PICTURES[name](), font_size=13))
        print(f"Wrote {OUT.format(name)}.")


def row(label, snapshot, x, clean, top, left, zoom=1):
    """Return a row of a picture: a part of an image that is restored as a whole.

    Args:
        label: What is wrong with the image.
        snapshot: Path of the network.
        x: The image corrupted, float [C, H, W].
        clean: The clean image, uint8 [C, H, W].
        top, left: Corner of the part.
        zoom: Side of its pixels in pixels of the picture.
    """
    with tf.Graph().as_default(), tflib.create_session():
        y = tiling.denoise(network.load_autoencoder(snapshot), x)
    part = slice(None), slice(top, top + SIZE // zoom), slice(left, left + SIZE // zoom)
    parts = (image[part] for image in (images.to_uint8(x), images.to_uint8(y), clean))
    return compared(label, *(pixels.repeat(zoom, axis=1).repeat(zoom, axis=2) for pixels in parts))


def corrupt(noise, path, channels):
    """Return an image with noise, as `row` takes it, and the clean one: (x, clean)."""
    clean = rgb_files.read(path, channels)
    seed = config.PROGRAM.defaults("validate").seed
    return corruption.create(noise).for_validation(images.to_float(clean), seed, os.path.basename(path)), clean


def networks():
    """Return the rows of the picture of Gaussian noise, Poisson noise and MRI."""
    parts = {"gaussian": ("kodim23.png", 120, 150), "poisson": ("kodim17.png", 70, 130)}
    rows = []
    for noise, (name, top, left) in parts.items():
        x, clean = corrupt(noise, os.path.join(config.validation_folder("kodak"), name), network.RGB)
        rows.append(row(noise, config.NETWORK.format(noise=noise), x, clean, top, left))
    return [*rows, mri_slice()]


def real():
    """Return the rows of the picture of real noise."""
    parts = {
        "Sony, ISO 6400": ("Sony_4-5_125_6400_waterhouse_10.jpg", 215, 150),
        "5D II, ISO 6400": ("Canon5D2_5_160_6400_circuit_3.jpg", 100, 180),
        "D800, ISO 6400": ("NikonD800_8_125_6400_photo_19.jpg", 100, 200),
    }
    rows = []
    for label, (name, top, left) in parts.items():
        noisy, clean = (rgb_files.read_rgb(os.path.join(REAL.format(kind), name)) for kind in ("noisy", "reference"))
        snapshot = config.NETWORK.format(noise="camera")
        rows.append(row(label, snapshot, images.to_float(noisy), clean, top, left, zoom=2))
    return rows


def grey():
    """Return the rows of the picture of greyscale photographs."""
    rows = []
    for name, top, left in ("test002.png", 60, 120), ("test003.png", 60, 120):
        x, clean = corrupt("gaussian", os.path.join(config.validation_folder("bsd68"), name), network.GREY)
        rows.append(row("gaussian", config.GREY_NETWORK.format(noise="gaussian"), x, clean, top, left))
    return rows


def mri_slice():
    """Return a row: the centre of an MRI slice."""
    defaults = config_mri.PROGRAM.defaults("validate")
    data = dataset_mri.load(os.path.join(defaults.data_dir, defaults.valid_set))
    settings = dataset_mri.Settings(dataset_mri.Undersampling(defaults.p_at_edge))
    element = dataset_mri.validation_element(data, settings, defaults.seed, SLICE)
    with tf.Graph().as_default(), tflib.create_session() as session:
        model = Model(defaults.post_op)
        session.run(tf.global_variables_initializer())
        model.load(config_mri.NETWORK)
        (result,) = model.run([element])
    gray = (images.to_uint8(image)[None].repeat(3, axis=0) for image in (result.input, result.restored, result.target))
    return compared("MRI", *(sheets.centre(pixels, SIZE) for pixels in gray))


PICTURES = {"networks": networks, "real": real, "grey": grey}

if __name__ == "__main__":
    dnnlib.cli_main(main)
