"""TFRecords files of images: write them, and read records in any order through an index of offsets.

A record consists of its length (uint64), the masked CRC-32C of the length, the payload, and the masked CRC-32C of the
payload, all little-endian. The payload is a `tf.train.Example` with the features `shape` int64[3] = (C, H, W) and
`data` = the uint8 pixels as bytes, channels first. C is 3, or 1 for greyscale, in the whole file.

Samples of 16 bits or floating point have a feature `type` bytes, "uint16" or "float32"; their `data` are little-endian.
A feature `range` float[2] has the samples that are black and white, if they are not 0 and 255 of 8 bits. Type and range
are the same in the whole file. Without these features a file is as published.

In a file of noisy shots every record also has the feature `scene` int64[1], the number of its scene. The shots of a
scene, two or more of the same size, are consecutive. Readers that ignore scenes see an ordinary file of images.
"""

import array
import itertools
import math
import os
import stat
import struct
import threading

import google_crc32c
import numpy as np

import dnnlib
from imaging.scale import EIGHT_BITS, Scale, full_scale

_HEADER, _FOOTER = 12, 4
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # Field numbers of tf.train.Feature.
_MAX_FEATURES = 32  # Maximum number of features of a record that are searched for those of an image.
_CHUNK = 1 << 20  # Bytes per read, so that memory does not depend on the record size.


def write_images(path, images, scale=EIGHT_BITS):
    """Write arrays [C, H, W] from the iterable `images`; return their number.

    The file appears under its name when it is complete. Raises UserError if it cannot be written.

    scale: The Scale of the samples, whose type the arrays must have.
    """
    return write_shots(path, ((pixels, None) for pixels in images), scale)


def write_shots(path, shots, scale=EIGHT_BITS):
    """Write noisy shots as `write_images` does, from an iterable of (array [C, H, W], number of the scene or None)."""
    from dnnlib.tflib import tf

    count = 0
    dnnlib.util.make_parents(path)
    with dnnlib.util.atomic_path(path) as temporary:
        try:
            with tf.io.TFRecordWriter(temporary) as writer:
                for pixels, scene in shots:
                    writer.write(_example(tf.train, pixels, scene, scale).SerializeToString())
                    count += 1
        except tf.errors.OpError as error:
            raise dnnlib.UserError(f"{path}: cannot be written ({error.message})") from None
        dnnlib.util.flush_to_disk(temporary)
    return count


def _example(messages, pixels, scene, scale):
    def integers(values):
        return messages.Feature(int64_list=messages.Int64List(value=values))

    def data(value):
        return messages.Feature(bytes_list=messages.BytesList(value=[value]))

    if pixels.dtype != scale.dtype:
        raise ValueError(f"samples of type {pixels.dtype} in a file of {scale.dtype}")
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    feature = {"shape": integers(pixels.shape), "data": data(pixels.tobytes())}
    if scale.dtype != EIGHT_BITS.dtype:
        feature["type"] = data(scale.dtype.encode())
    if scale != EIGHT_BITS:
        ends = messages.FloatList(value=[scale.black, scale.white])
        feature["range"] = messages.Feature(float_list=ends)
    if scene is not None:
        feature["scene"] = integers([scene])
    return messages.Example(features=messages.Features(feature=feature))


class ImageRecords:
    """Random access to the images of a TFRecords file, from any number of threads.

    Opening a file reads the length and the checksums of every record (16 bytes each), which detects truncated and
    foreign files. Every read of pixels verifies their checksum.
    """

    def __init__(self, path):
        """Open `path`. Raises UserError if it is missing, not a TFRecords file, truncated or empty."""
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise dnnlib.UserError(f"{path}: not a file; make one with dataset_tool_tf.py")
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by __del__)
        except OSError as error:
            raise dnnlib.UserError(f"{path}: {error.strerror}; make it with dataset_tool_tf.py") from None
        self._lock = threading.Lock()
        self._offsets, self._lengths, self._checksums = self._read_index()

    def __len__(self):
        return len(self._offsets)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()

    def structure(self):
        """Return the offset, length and checksum of every record as three arrays; they identify the content."""
        return self._offsets, self._lengths, self._checksums

    def shape(self, record):
        """Return the shape (C, H, W) of image number `record`, without verifying the checksum."""
        return self._parse(record)[0]

    def check(self):
        """Raise UserError for the first record whose structure is not that of an image, or not that of the others.

        Pixels are not read.
        """
        channels, scale = self.shape(0)[0], self.scale()
        for record in dnnlib.util.progress(range(len(self)), desc="checking", unit="record", leave=False):
            shape, _, _, own_scale = self._parse(record)
            if shape[0] != channels:
                raise self._error(record, f"has the shape {shape}, in a file of {channels} channels")
            if own_scale != scale:
                raise self._error(record, f"has samples of {own_scale}, in a file of {scale}")

    def scale(self):
        """Return the Scale of the samples, which is that of the first record."""
        return self._parse(0)[3]

    def scenes(self):
        """Return int64 [scenes, 2]: the first record and the number of shots of each scene; 1 shot in files of images.

        Raises UserError if a scene has only one shot, or shots of different sizes.
        """
        if self._parse(0)[2] is None:
            return np.stack([np.arange(len(self)), np.ones(len(self), np.int64)], axis=1)
        scenes, last = [], None
        for record in range(len(self)):
            shape, _, scene, _ = self._parse(record)
            if scene is None:
                raise self._error(record, "is a single image in a file of shots")
            if (scene, shape) == last:
                scenes[-1][1] += 1
                continue
            if last and scene == last[0]:
                raise self._error(record, f"has the shape {shape}, the shot before it {last[1]}")
            scenes.append([record, 1])
            last = (scene, shape)
        for first, shots in scenes:
            if shots == 1:
                raise self._error(first, "is the only shot of its scene")
        return np.array(scenes, np.int64)

    def read(self, record):
        """Return image number `record`: its samples [C, H, W]."""
        _, height, width = self.shape(record)
        return self.crop(record, 0, 0, height, width)

    def crop(self, record, y, x, height, width):
        """Return a crop of image number `record`, samples [C, height, width], with its top left corner at (x, y).

        Only the rows of the crop are held in memory. Raises UserError if the checksum or the features are wrong.
        """
        self._verify(record)
        (channels, full_height, full_width), data, _, scale = self._parse(record)
        rows, stored = np.empty([channels, height, full_width], scale.dtype), np.dtype(scale.dtype).newbyteorder("<")
        for channel in range(channels):
            start = data + (channel * full_height + y) * full_width * stored.itemsize
            row_bytes = self._pread(start, height * full_width * stored.itemsize)
            rows[channel] = np.frombuffer(row_bytes, stored).reshape(height, full_width)
        return rows[:, :, x : x + width].copy()

    def _error(self, record, what):
        return dnnlib.UserError(f"{self.path}: record {record} {what}")

    def _pread(self, offset, size):
        data = self._read(offset, size)
        if len(data) != size:
            raise dnnlib.UserError(f"{self.path}: ends before byte {offset + size}; it was cut short")
        return data

    def _read(self, offset, size):
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:  # Windows.
            self._file.seek(offset)
            return self._file.read(size)

    def _read_index(self):
        end, offset = os.fstat(self._file.fileno()).st_size, 0
        offsets, lengths, checksums = array.array("q"), array.array("q"), array.array("I")
        while offset < end:
            header = self._read(offset, _HEADER)
            if len(header) < _HEADER:
                raise self._error(len(offsets), "is cut short: the file is truncated")
            length, crc = struct.unpack("<QI", header)
            if crc != _masked_crc(google_crc32c.value(header[:8])):
                if not offsets:
                    raise dnnlib.UserError(f"{self.path}: not a TFRecords file")
                raise self._error(len(offsets), "has a damaged length")
            offset += _HEADER + length + _FOOTER
            if offset > end:
                raise self._error(len(offsets), "is cut short: the file is truncated")
            offsets.append(offset - length - _FOOTER)
            lengths.append(length)
            checksums.append(*struct.unpack("<I", self._pread(offset - _FOOTER, _FOOTER)))
        if not offsets:
            raise dnnlib.UserError(f"{self.path}: has no records")
        return np.array(offsets, np.int64), np.array(lengths, np.int64), np.array(checksums, np.uint32)

    def _verify(self, record):
        offset, length, crc = int(self._offsets[record]), int(self._lengths[record]), 0
        for start in range(0, length, _CHUNK):
            crc = google_crc32c.extend(crc, self._pread(offset + start, min(_CHUNK, length - start)))
        if _masked_crc(crc) != self._checksums[record]:
            raise self._error(record, "is damaged: its checksum is wrong")

    def _parse(self, record):
        """Return (shape, file offset of the first pixel, scene or None, Scale) without reading the pixels."""
        start = int(self._offsets[record])
        stop = start + int(self._lengths[record])
        shape = data = scene = ends = None
        dtype = EIGHT_BITS.dtype
        try:
            ((_, features, end),) = self._fields(start, stop)  # Example.features
            for _, entry, entry_end in itertools.islice(self._fields(features, end), _MAX_FEATURES):
                (_, key, key_end), (_, value, value_end) = self._fields(entry, entry_end)  # Map entry
                name = self._pread(key, min(key_end - key, 8))
                if name not in (b"shape", b"data", b"scene", b"type", b"range"):
                    continue
                kind, values, values_end = next(self._fields(value, value_end))  # Feature.bytes_list or .int64_list
                if (name, kind) == (b"shape", _INT64_LIST):
                    shape = self._int64_list(values, values_end)
                elif (name, kind) == (b"scene", _INT64_LIST):
                    scene = self._int64_list(values, values_end)[0]
                elif (name, kind) == (b"data", _BYTES_LIST):
                    _, data, data_end = next(self._fields(values, values_end))
                elif (name, kind) == (b"type", _BYTES_LIST):
                    _, word, word_end = next(self._fields(values, values_end))
                    dtype = self._pread(word, min(word_end - word, 8)).decode("ascii", "replace")
                elif (name, kind) == (b"range", _FLOAT_LIST):
                    _, packed, packed_end = next(self._fields(values, values_end))
                    ends = struct.unpack("<2f", self._pread(packed, packed_end - packed))
        except (ValueError, StopIteration, IndexError, struct.error):
            raise self._error(record, "is not a tf.train.Example of an image") from None
        if shape is None or data is None:
            raise self._error(record, "lacks the feature 'shape' or 'data'")
        try:
            scale = Scale(dtype, *ends) if ends else full_scale(dtype)
        except (dnnlib.UserError, KeyError):
            what = f"has samples of type {dnnlib.util.printable(dtype)} with black and white {ends}"
            raise self._error(record, f"{what}, which is not known") from None
        size = np.dtype(dtype).itemsize
        fits = len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0 and size * math.prod(shape) == data_end - data
        if not fits:
            message = f"has {data_end - data} bytes of pixels for shape {shape}, not (3, H, W) or (1, H, W)"
            raise self._error(record, message)
        return shape, data, scene, scale

    def _fields(self, start, stop):
        """Yield (field number, offset, end) of the length-delimited protobuf fields in a part of the file."""
        while start < stop:
            head = self._pread(start, min(20, stop - start))
            tag, position = _varint(head, 0)
            if tag & 7 != 2:
                raise ValueError
            size, position = _varint(head, position)
            begin, start = start + position, start + position + size
            if start > stop:
                raise ValueError
            yield tag >> 3, begin, start

    def _int64_list(self, start, stop):
        """Read the values of an Int64List, which are packed or one varint field each."""
        raw, position, values = self._pread(start, min(stop - start, 64)), 0, []
        while position < len(raw):
            tag, position = _varint(raw, position)
            size = 1  # Bytes, at least, of the one varint that follows.
            if tag & 7 == 2:  # Packed: this many bytes of varints follow.
                size, position = _varint(raw, position)
            end = position + size
            while position < end:
                value, position = _varint(raw, position)
                values.append(value)
        return tuple(values)


def _varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]  # IndexError if the varint is cut short.
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _masked_crc(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
