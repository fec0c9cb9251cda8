"""PNG, JPEG, WebP, BMP and TIFF through OCR; the size is read from the header before anything is unpacked."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from core.errors import MissingExtra
from core.loaders import ocr
from core.loaders.options import Options, problem, sentence
from core.loaders.outline import Outline
from core.types import Locator, Parsed

MAX_PIXELS: Final = 60_000_000
MAX_FRAMES: Final = 100
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LARGE_SIDE: Final = 4000


class PictureLoader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        width, height = picture_size(data)
        if width * height > MAX_PIXELS:
            raise problem("pixels", count=MAX_PIXELS // 1_000_000)
        if not self._options.ocr:
            raise problem("scan_off")
        try:
            read = ocr.picture_reader(self._options.ocr_begins)
        except MissingExtra as error:
            raise problem("scan", extra="ocr") from error
        return _read(data, read, time.monotonic() + self._options.ocr_seconds)


def _read(data: bytes, read: Callable[[Any], list[str]], end: float) -> Parsed:
    outline = Outline()
    notes: tuple[str, ...] = ()
    for number, frame in enumerate(_frames(data), 1):
        if number > MAX_FRAMES or time.monotonic() > end:
            notes = (sentence("note_scan_pages", count=number - 1),)
            break
        outline.at(Locator("page", "", number, number))
        outline.paragraph("\n".join(read(frame)))
    return Parsed(outline.sections(), notes=notes)


def _frames(data: bytes) -> Iterator[Any]:
    """The pictures in the file as arrays of RGB pixels."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP", "TIFF")) as file:
            for number in range(min(getattr(file, "n_frames", 1), MAX_FRAMES + 1)):
                file.seek(number)
                if file.width * file.height > MAX_PIXELS:
                    raise problem("pixels", count=MAX_PIXELS // 1_000_000)
                picture = file.convert("RGB")
                picture.thumbnail((_LARGE_SIDE, _LARGE_SIDE))
                yield np.asarray(picture)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise problem("damaged", kind="image") from error


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height as the header says, in pixels. Raises DocumentError where it cannot be read."""
    try:
        size = _header_size(data)
    except (struct.error, IndexError) as error:
        raise problem("damaged", kind="image") from error
    if size is None or min(size) <= 0:
        raise problem("damaged", kind="image")
    return size


def _header_size(data: bytes) -> tuple[int, int] | None:
    size: tuple[int, int] | None = None
    if data.startswith(b"\x89PNG"):
        size = struct.unpack_from(">II", data, 16)
    elif data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        size = width, abs(height)
    elif data.startswith(b"\xff\xd8"):
        size = _jpeg_size(data)
    elif data.startswith(b"RIFF"):
        size = _webp_size(data)
    elif data[:2] in (b"II", b"MM"):
        size = _tiff_size(data)
    return size


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    form = data[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    found = {}
    for entry in range(min(struct.unpack_from(f"{order}H", data, at)[0], 500)):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", data, at + 2 + 12 * entry)
        value = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 2 + 12 * entry + 8)[0]
        found[tag] = value
    return (found[256], found[257]) if 256 in found and 257 in found else None
