"""Make docs/images/networks.png, which shows what the networks of this folder do: `python networks/picture.py`

The picture has parts of two Kodak photographs and of a slice of the MRI validation set: corrupted, restored, clean.
"""

import os

import config
import config_mri
import corruption
import dnnlib
import network
from dnnlib import tflib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import tf
from imaging import images, rgb_files, sheets
from inference import tiling
from inference.compare import compared
from mri import dataset_mri
from mri.model import Model

OUT = "docs/images/networks.png"
SIZE = 192  # Side of a part, in pixels.
PARTS = {"gaussian": ("kodim23.png", 120, 150), "poisson": ("kodim17.png", 70, 130)}  # {noise: (image, top, left)}
SLICE = 36


def main():
    """Write the picture."""
    ArgumentParser(description=__doc__).parse_args()
    os.chdir(dnnlib.submission.SOURCE_ROOT)
    rows = [photograph(noise, *part) for noise, part in PARTS.items()]
    images.save(OUT, sheets.labelled_sheet([*rows, mri_slice()], font_size=13))
    print(f"Wrote {OUT}.")


def photograph(noise, name, top, left):
    """Return a row of the picture: a part of a photograph that is corrupted and restored as a whole."""
    clean = rgb_files.read_rgb(os.path.join(config.validation_folder("kodak"), name))
    seed = config.PROGRAM.defaults("validate").seed
    x = corruption.create(noise).for_validation(images.to_float(clean), seed, name)
    with tf.Graph().as_default(), tflib.create_session():
        y = tiling.denoise(network.load_autoencoder(config.NETWORK.format(noise=noise)), x)
    part = slice(None), slice(top, top + SIZE), slice(left, left + SIZE)
    return compared(noise, *(pixels[part] for pixels in (images.to_uint8(x), images.to_uint8(y), clean)))


def mri_slice():
    """Return a row of the picture: the centre of an MRI slice."""
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


if __name__ == "__main__":
    dnnlib.cli_main(main)
