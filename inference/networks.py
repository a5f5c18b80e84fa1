"""The networks that denoise image files: one for all, or one for colour and one for greyscale images."""

import contextlib
import os

import dnnlib
from dnnlib import tflib
from dnnlib.submission import SOURCE_ROOT
from dnnlib.tflib import tf
from imaging.scale import from_data
from inference.ensemble import Ensemble
from network import GREY, RGB, channels_of, load_autoencoder


class Networks(contextlib.ExitStack):
    """Loads the network that a page needs. The networks can be used until the context is left."""

    def __init__(self, snapshot, grey_snapshot, dtype, ensemble):
        """Args:
        snapshot: Path of the network for all pages; for colour pages if there is `grey_snapshot`.
        grey_snapshot: Path of the network for greyscale pages, or None.
        dtype: Type of the arithmetic.
        ensemble: Whether to take the mean over turns and mirrors, see `Ensemble`.
        """
        super().__init__()
        self._dtype, self._ensemble, self._loaded, self._told = dtype, ensemble, {}, set()
        self._snapshot, self._grey_snapshot = snapshot, grey_snapshot
        if not grey_snapshot:
            self.get(grey=False)  # A wrong file ends the program before the work.

    def get(self, grey):
        """Return the network for greyscale or for colour images."""
        path = self._grey_snapshot if grey and self._grey_snapshot else self._snapshot
        if path not in self._loaded:
            if self._grey_snapshot:
                kind = "greyscale" if grey else "colour"
                print(f"Network for {kind} images: {_shown(path)}, as --network-snapshot names no other.")
            with contextlib.ExitStack() as opened:  # Closes them if the snapshot is refused.
                opened.enter_context(tf.Graph().as_default())
                opened.enter_context(tflib.create_session())
                network = load_autoencoder(path, self._dtype)
                self.push(opened.pop_all())
            self._loaded[path] = Ensemble(network) if self._ensemble else network
        return self._loaded[path]

    def for_page(self, page, image):
        """Return the network for a page of the file `image`, and say what is remarkable about the choice.

        The page gets the range of the samples that the network was trained with, if it has their type and no other one.
        """
        grey = page.is_grey()
        if grey and page.colours.shape[2] > 1:
            self._tell(f"note: {image}: its channels are equal; it is greyscale")
        network = self.get(grey)
        channels, path = channels_of(network), _shown(self._snapshot)
        if channels == GREY and not grey:
            raise dnnlib.UserError(f"{image}: is in colour, and {path} is a network for greyscale; name another one")
        if channels == RGB and grey:
            self._tell(
                f"warning: {image}: is greyscale, and {path} is a network for colour. It takes what is equal in all "
                "channels for the image, noise included; a network of --channels 1 removes it"
            )
        trained_with = from_data(network.data)
        if page.kind.sample_range is None and trained_with and trained_with.dtype == page.dtype:
            page.kind.sample_range = trained_with.black, trained_with.white
        return network

    def _tell(self, line):
        """Print a line, but only once; the pages of a stack are alike."""
        if line not in self._told:
            self._told.add(line)
            print(line, flush=True)


def _shown(path):
    """The path of a network of the program relative to its folder; other paths as they are."""
    return os.path.relpath(path, SOURCE_ROOT) if path.startswith(os.path.join(SOURCE_ROOT, "")) else path
