"""Download the 24 images of the Kodak set, which the project uses for validation.

    python download_kodak.py --output-dir datasets/kodak

Every image is checked before it is saved under its name. Repeat the command after an interruption: it keeps the images
that are complete. Where https is blocked, --base-url http://r0k.us/graphics/kodak/kodak/ goes without encryption.
"""

import http.client
import io
import os
import time
import urllib.error
import urllib.request

from PIL import Image
from tqdm import tqdm

import dnnlib
from dnnlib.options import ArgumentParser
from imaging import images

COUNT = 24
URL = "https://r0k.us/graphics/kodak/kodak/"
PORTRAITS = (4, 9, 10, 17, 18, 19)  # 512x768; the others are 768x512.

_TIMEOUT = 30  # Seconds without data.
_PAUSES = (1, 2, 4)  # Seconds before each retry.
_MAX_BYTES = 16 << 20  # Maximum size of a download; every image is smaller than 1 MB.
_LAST_BYTES = b"IEND\xaeB`\x82"  # Every PNG ends with this; Pillow does not check it.
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses of temporary faults.


class _Unavailable(Exception):
    """An attempt failed; a retry may succeed."""


def main():
    """Run the command line."""
    args = _parse_arguments()
    images.check_writable(os.path.join(args.output_dir, _name(1)))
    os.makedirs(args.output_dir, exist_ok=True)
    with dnnlib.util.progress(total=COUNT, unit="image") as bar:
        for number in range(1, COUNT + 1):
            path = os.path.join(args.output_dir, _name(number))
            kept = _is_complete(path, number)
            if not kept:
                with dnnlib.open_atomic(path, "wb") as f:
                    f.write(_fetch(args.base_url + _name(number), number))
            tqdm.write(f"{path}: {'exists already' if kept else 'downloaded'}")
            bar.update()


def _parse_arguments():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", metavar="DIR", required=True, help="folder for kodim01.png, kodim02.png, ...")
    parser.add_argument("--base-url", metavar="URL", default=URL, help="URL of a mirror; default %(default)s")
    args = parser.parse_args()
    if not args.output_dir:
        parser.error("argument --output-dir: is empty; name a folder")
    if not args.base_url.startswith(("http://", "https://")):
        parser.error(f"argument --base-url: '{args.base_url}' must begin with http:// or https://")
    args.base_url = args.base_url.rstrip("/") + "/"
    return args


def _name(number):
    return f"kodim{number:02}.png"


def _is_complete(path, number):
    """Whether the file at `path` is complete image `number`. Prints why if it exists and is not."""
    if not os.path.exists(path):
        return False
    with open(path, "rb") as f:
        fault = find_fault(f.read(), number)
    if fault:
        tqdm.write(f"{path}: {fault}; downloading it again")
    return fault is None


def find_fault(data, number):
    """Explain why the bytes `data` are not Kodak image `number`, 1 to 24; None if they are."""
    size = (512, 768) if number in PORTRAITS else (768, 512)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if (image.size, image.mode) != (size, "RGB"):
                return f"is {image.mode} of {image.width}x{image.height}, not RGB of {size[0]}x{size[1]}"
            image.verify()  # Checks the checksums. The image must be opened again to be decoded.
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
        return None if data.endswith(_LAST_BYTES) else "is cut short"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "is not a complete PNG image"


def _fetch(url, number):
    """Return the checked bytes of image `number` from `url`, with retries."""
    for pause in (*_PAUSES, None):
        try:
            return _download(url, number)
        except _Unavailable as error:
            if pause is None:
                raise dnnlib.UserError(f"{error}; check the network, or name a mirror with --base-url") from None
            time.sleep(pause)


def _download(url, number):
    request = urllib.request.Request(url, headers={"User-Agent": "noise2noise download_kodak.py"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            data = response.read(_MAX_BYTES)
    except urllib.error.HTTPError as error:
        what = f"{url}: the server answers {error.code} {error.reason}"
        raise _Unavailable(what) if error.code in _WORTH_RETRYING else dnnlib.UserError(what) from None
    except urllib.error.URLError as error:
        raise _Unavailable(f"{url}: cannot connect ({error.reason})") from None
    except (ValueError, http.client.InvalidURL) as error:  # Such as a port that is not a number.
        raise dnnlib.UserError(f"{url}: {error}") from None
    except (OSError, http.client.HTTPException) as error:  # While reading.
        raise _Unavailable(f"{url}: the download broke off ({error})") from None
    if fault := find_fault(data, number):
        raise _Unavailable(f"{url}: what was downloaded {fault}")
    return data


if __name__ == "__main__":
    dnnlib.cli_main(main)
