"""Validation on a folder of clean images with seeded noise, or of noisy images."""

import csv
import os

import numpy as np

import corruption
import dnnlib
from dnnlib import tflib
from imaging import images, metrics, rgb_files, sheets
from inference.networks import Networks
from inference.tiling import denoise
from network import RGB, channels_of
from records import shots


class ValidationSet:
    """The images of a folder, with the same noise in every evaluation: it depends on the seed and the image's name.

    With `corruption.Recorded` the images are noisy already. They are compared with the images of the same names in
    another folder: clean ones, or second shots, whose noise lowers every PSNR by the same amount. Without such a
    folder there is no PSNR.
    """

    def __init__(self, folder, noise, seed, reference_dir=None, channels=3):
        """Find the images of a folder.

        Args:
            folder: Path.
            noise: A corruption.
            seed: Seed of the noise.
            reference_dir: Path of the folder to compare with, for `corruption.Recorded` only.
            channels: 3: grey images become RGB, or 1: colour images become grey.

        Raises:
            UserError: No image can be read, or `reference_dir` lacks an image or has it in another size, or the noise
                needs colour.
        """
        noise.check_channels(channels)
        self.folder, self.noise, self.seed, self.channels = folder, noise, seed, channels
        self.recorded = isinstance(noise, corruption.RecordedNoise)
        self.references = dict(shots.find_pairs(folder, reference_dir)) if reference_dir else {}
        self.paths, self._notes = [], set()
        for path in self.references or images.list_images(folder):
            try:
                rgb_files.read_header(path)
                self.paths.append(path)
            except dnnlib.UserError as error:
                print(f"warning: left out: {error}")
        if not self.paths:
            raise self._nothing_readable()

    def evaluate(self, network):
        """Yield a Result for each image. Raise UserError if none can be read."""
        count = 0
        for path in self.paths:
            try:
                image = rgb_files.read(path, self.channels, self._note)
                x = images.to_float(image)
                clean = self._reference(path) if self.recorded else images.to_uint8(self.noise.reference(x))
            except dnnlib.UserError as error:
                print(f"warning: left out: {error}")
                continue
            name = os.path.basename(path)
            noisy = self.noise.for_validation(x, self.seed, name)
            yield Result(name, clean, images.to_uint8(noisy), images.to_uint8(denoise(network, noisy)))
            count += 1
        if not count:
            raise self._nothing_readable()

    def _reference(self, path):
        return rgb_files.read(self.references[path], self.channels, self._note) if path in self.references else None

    def _note(self, text):
        """Print a note about a file, but only once."""
        if text not in self._notes:
            self._notes.add(text)
            rgb_files.print_note(text)

    def _nothing_readable(self):
        return dnnlib.UserError(f"{self.folder}: no image there can be read")


class Result:
    """An image of a validation set: `clean`, `noisy` and `denoised`, uint8 [C, H, W], and the PSNR in dB.

    `clean` is the image of `reference_dir` if the images are noisy; without that folder, `clean` and `psnr` are None.
    """

    def __init__(self, name, clean, noisy, denoised):
        self.name, self.clean, self.noisy, self.denoised = name, clean, noisy, denoised
        self.psnr = None if clean is None else metrics.psnr(clean, denoised, peak=255)

    def row(self):
        """Return a row of `metrics.csv`: PSNR in dB and SSIM of the noisy and of the denoised image."""
        _, height, width = self.clean.shape
        return {
            "image": self.name,
            "width": width,
            "height": height,
            "psnr_noisy": metrics.psnr(self.clean, self.noisy, peak=255),
            "psnr_denoised": self.psnr,
            "ssim_noisy": metrics.ssim(self.clean, self.noisy),
            "ssim_denoised": metrics.ssim(self.clean, self.denoised),
        }

    def save(self, run_path, iteration, index, kinds=("noisy", "pred", "orig")):
        """Write img_<iteration>_val_<index>_<kind>.png for each of `kinds`; "orig" only if there is a clean image.

        Args:
            run_path: Function from a file name to its path in the run directory.
        """
        pictures = {"noisy": self.noisy, "pred": self.denoised, "orig": self.clean}
        for kind in kinds:
            if pictures[kind] is not None:
                images.save_uint8(run_path(f"img_{iteration}_val_{index}_{kind}.png"), pictures[kind])

    def side_by_side(self, size=256):
        """Return the centres of noisy, denoised and clean side by side: uint8 [C, up to size, up to 3 size]."""
        pictures = [x for x in (self.noisy, self.denoised, self.clean) if x is not None]
        return np.concatenate([sheets.centre(x, size) for x in pictures], axis=2)


def validate(
    submit_config,
    network_snapshot,
    dataset_dir,
    reference_dir,
    noise,
    noise_settings,
    precision,
    seed,
    save_images=True,
    grey_snapshot=None,
    ensemble=False,
):
    """Denoise every image of a folder and write `metrics.csv`. Return the average PSNR in dB.

    Args:
        submit_config: The SubmitConfig.
        network_snapshot, grey_snapshot: Paths of the snapshots, see `Networks`.
        dataset_dir, reference_dir: See `ValidationSet`.
        noise, noise_settings: See `corruption.create`.
        precision: Arithmetic of the network, see `tflib.pick_dtype`.
        seed: Seed of the noise.
        save_images: Whether to write pictures of every image.
        ensemble: Whether to measure the mean over 8 turns and mirrors, see `Ensemble`.
    """
    tflib.pick_devices(submit_config.num_gpus)
    with Networks(network_snapshot, grey_snapshot, tflib.pick_dtype(precision), ensemble) as networks:
        grey = rgb_files.all_grey(dataset_dir)
        network = networks.get(grey)
        if grey and channels_of(network) == RGB:
            print(f"note: {dataset_dir}: is greyscale, and the network is for colour; each channel gets other noise")
        noise = corruption.create(noise, **noise_settings)
        validation_set = ValidationSet(dataset_dir, noise, seed, reference_dir, channels_of(network))
        rows = []
        with dnnlib.RunContext(submit_config, max_iter=len(validation_set.paths)) as ctx:
            for result in validation_set.evaluate(network):
                if save_images:
                    result.save(ctx.path, 0, len(rows))
                rows.append(result.row())
                ctx.print("{image}  {width}x{height}  {psnr_noisy:.2f} -> {psnr_denoised:.2f} dB".format(**rows[-1]))
                ctx.step(len(rows))
            rows.append(_mean_row(rows))
            with dnnlib.open_atomic(ctx.path("metrics.csv"), newline="") as f:
                writer = csv.DictWriter(f, rows[0].keys())
                writer.writeheader()
                writer.writerows(_rounded(row) for row in rows)
        print(f"Average PSNR: {rows[-1]['psnr_denoised']:.2f}")
        return rows[-1]["psnr_denoised"]


def _mean_row(rows):
    measures = [name for name in rows[0] if name.startswith(("psnr", "ssim"))]
    means = {name: _mean([row[name] for row in rows]) for name in measures}
    return {"image": "mean", "width": "", "height": ""} | means


def _mean(values):
    """Return the mean of the values that are not NaN; NaN if all are."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _rounded(row):
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
