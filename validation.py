"""Validation on a folder of clean images with seeded noise, or of noisy images."""

import contextlib
import csv
import os

import numpy as np

import corruption
import dnnlib
from dnnlib import tflib
from imaging import images, metrics, pages, rgb_files, sheets
from imaging.scale import EIGHT_BITS, Extent, Scale, from_data, full_scale, scale_of_set
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

    def __init__(self, folder, noise, seed, reference_dir=None, channels=3, scale=None, sample_range=None):
        """Find the images of a folder.

        Args:
            folder: Path.
            noise: A corruption.
            seed: Seed of the noise.
            reference_dir: Path of the folder to compare with, for `corruption.Recorded` only.
            channels: 3: grey images become RGB, or 1: colour images become grey.
            scale: Scale of the samples of its type, from the network; other types have their full range.
            sample_range: (black, white) of all samples; "auto": two percentiles over the folder; None: see `scale`.

        Raises:
            UserError: No image can be read, or `reference_dir` lacks an image or has it in another size, or the noise
                needs colour.
        """
        noise.check_images(channels, scale.dtype if scale else "uint8")
        self.folder, self.noise, self.seed, self.channels = folder, noise, seed, channels
        self.recorded = isinstance(noise, corruption.RecordedNoise)
        self.references = dict(shots.find_pairs(folder, reference_dir)) if reference_dir else {}
        self.scale, self.sample_range = scale, sample_range
        self.paths, self._notes = [], set()
        for path in self.references or images.list_images(folder):
            try:
                rgb_files.read_header(path)
                self.paths.append(path)
            except dnnlib.UserError as error:
                print(f"warning: left out: {error}")
        if not self.paths:
            raise self._nothing_readable()
        if sample_range == "auto":
            self.sample_range = self._auto_range()

    def evaluate(self, network):
        """Yield a Result for each image. Raise UserError if none can be read."""
        count = 0
        for path in self.paths:
            try:
                samples = rgb_files.read_samples(path, self.channels, self._note)
                scale = self._scale_of(samples, path)
                x = scale.to_float(samples)
                clean = self._reference(path, scale) if self.recorded else scale.to_samples(self.noise.reference(x))
            except dnnlib.UserError as error:
                print(f"warning: left out: {error}")
                continue
            name = os.path.basename(path)
            noisy = self.noise.for_validation(x, self.seed, name)
            yield Result(name, clean, scale.to_samples(noisy), scale.to_samples(denoise(network, noisy)), scale)
            count += 1
        if not count:
            raise self._nothing_readable()

    def _auto_range(self):
        extent, dtype = Extent(len(self.paths)), "uint8"
        for path in self.paths:
            with contextlib.suppress(dnnlib.UserError):  # `evaluate` says what it leaves out.
                samples = rgb_files.read_samples(path, self.channels, note=lambda text: None)
                dtype = samples.dtype.name
                extent.add(samples)
        chosen, how = scale_of_set(dtype, "auto", extent)
        print(f"{self.folder}: {chosen} ({how}).")
        return chosen.black, chosen.white

    def _scale_of(self, samples, path):
        """Return the Scale of samples. Raise UserError if black and white are unknown and the samples do not fit."""
        dtype = samples.dtype.name
        if self.sample_range:
            return Scale(dtype, *self.sample_range)
        if self.scale and self.scale.dtype == dtype:
            return self.scale
        doubt = pages.range_doubt(pages.Page(samples.transpose(1, 2, 0), pages.Kind()))
        if doubt:
            raise images.Refused(f"{path}: {doubt}; set both by --range LOW HIGH")
        return full_scale(dtype)

    def _reference(self, path, scale):
        """Return the image to compare with, or None. Raise UserError if its samples are of another type."""
        if path not in self.references:
            return None
        samples = rgb_files.read_samples(self.references[path], self.channels, self._note)
        if samples.dtype != scale.dtype:
            raise dnnlib.UserError(f"{self.references[path]}: has samples of {samples.dtype}, {path} of {scale.dtype}")
        return samples

    def _note(self, text):
        """Print a note about a file, but only once."""
        if text not in self._notes:
            self._notes.add(text)
            rgb_files.print_note(text)

    def _nothing_readable(self):
        return dnnlib.UserError(f"{self.folder}: no image there can be read")


class Result:
    """An image of a validation set: `clean`, `noisy` and `denoised`, samples [C, H, W], and the PSNR in dB.

    The peak of the PSNR is white minus black. `clean` is the image of `reference_dir` if the images are noisy; without
    that folder, `clean` and `psnr` are None.
    """

    def __init__(self, name, clean, noisy, denoised, scale=EIGHT_BITS):
        self.name, self.clean, self.noisy, self.denoised, self.scale = name, clean, noisy, denoised, scale
        self.psnr = None if clean is None else metrics.psnr(clean, denoised, scale.peak)

    def row(self):
        """Return a row of `metrics.csv`: PSNR in dB and SSIM of the noisy and of the denoised image."""
        _, height, width = self.clean.shape
        return {
            "image": self.name,
            "width": width,
            "height": height,
            "psnr_noisy": metrics.psnr(self.clean, self.noisy, self.scale.peak),
            "psnr_denoised": self.psnr,
            "ssim_noisy": metrics.ssim(self.clean, self.noisy, self.scale.peak),
            "ssim_denoised": metrics.ssim(self.clean, self.denoised, self.scale.peak),
        }

    def save(self, run_path, iteration, index, kinds=("noisy", "pred", "orig")):
        """Write img_<iteration>_val_<index>_<kind>.png for each of `kinds`; "orig" only if there is a clean image.

        The pictures are of 8 bits, from black to white.

        Args:
            run_path: Function from a file name to its path in the run directory.
        """
        kept = {"noisy": self.noisy, "pred": self.denoised, "orig": self.clean}
        for kind in kinds:
            if kept[kind] is not None:
                picture = images.to_uint8(self.scale.to_float(kept[kind]))
                images.save_uint8(run_path(f"img_{iteration}_val_{index}_{kind}.png"), picture)

    def side_by_side(self, size=256):
        """Return the centres of noisy, denoised and clean side by side: uint8 [C, up to size, up to 3 size]."""
        kept = [x for x in (self.noisy, self.denoised, self.clean) if x is not None]
        return images.to_uint8(self.scale.to_float(np.concatenate([sheets.centre(x, size) for x in kept], axis=2)))


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
    sample_range=None,
    ensemble=False,
):
    """Denoise every image of a folder and write `metrics.csv`. Return the average PSNR in dB.

    Args:
        submit_config: The SubmitConfig.
        network_snapshot, grey_snapshot: Paths of the snapshots, see `Networks`.
        dataset_dir, reference_dir, sample_range: See `ValidationSet`.
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
        channels, scale = channels_of(network), from_data(network.data)
        validation_set = ValidationSet(dataset_dir, noise, seed, reference_dir, channels, scale, sample_range)
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
