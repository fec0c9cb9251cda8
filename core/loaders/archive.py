"""Zip containers (Office, OpenDocument, EPUB) read in memory, with every size checked and every byte counted."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from core.loaders.options import problem

MAX_MEMBERS: Final = 20_000
MAX_TOTAL: Final = 1 << 30
"""Unpacked bytes of all members."""
MAX_MEMBER: Final = 256 << 20
"""Unpacked bytes of a member that is read whole."""
MAX_RATIO: Final = 100
RATIO_FLOOR: Final = 8 << 20
"""Unpacked bytes below which the ratio does not matter: a small file packs well."""
_STEP: Final = 1 << 20


class Archive:
    """Members by name. Raises DocumentError where the container is damaged, encrypted, or packed to do harm."""

    def __init__(self, data: bytes, kind: str) -> None:
        self._data, self._kind = data, kind
        self._members = self._directory()
        self._left = MAX_TOTAL

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """The member's bytes; raises DocumentError where it is not there."""
        info = self._members.get(name)
        if info is None:
            raise problem("damaged", kind=self._kind)
        if info.file_size > MAX_MEMBER:
            raise problem("bomb")
        return b"".join(self._unpacked(info))

    def verify(self) -> None:
        """Unpack every member and drop the bytes: for readers of other makers, which believe the declared sizes."""
        for info in self._members.values():
            for _ in self._unpacked(info):
                pass

    def _directory(self) -> dict[str, zipfile.ZipInfo]:
        self._check_end()
        try:
            with zipfile.ZipFile(io.BytesIO(self._data)) as file:
                infos = file.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
            raise problem("damaged", kind=self._kind) from error
        if len(infos) > MAX_MEMBERS:
            raise problem("bomb")
        unpacked = sum(info.file_size for info in infos)
        if unpacked > MAX_TOTAL or (unpacked > RATIO_FLOOR and unpacked > MAX_RATIO * len(self._data)):
            raise problem("bomb")
        _check_overlap(infos, len(self._data))
        if any(info.flag_bits & 1 for info in infos):
            raise problem("encrypted")
        return {info.filename: info for info in infos if not info.is_dir()}

    def _check_end(self) -> None:
        """Look at the counts of the end record first: a directory of a million entries costs seconds to read."""
        at = self._data.rfind(b"PK\x05\x06", max(0, len(self._data) - 65_557))
        if at < 0 or len(self._data) < at + 22:
            raise problem("damaged", kind=self._kind)
        count, size = struct.unpack_from("<HI", self._data, at + 10)
        if count > MAX_MEMBERS or size > 512 * MAX_MEMBERS:
            raise problem("bomb")

    def _unpacked(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        packed = self._packed(info)
        got = 0
        for piece in _inflate(packed, info.compress_type, self._kind):
            got += len(piece)
            self._left -= len(piece)
            if got > info.file_size or self._left < 0:
                raise problem("bomb")
            yield piece
        if got != info.file_size:
            raise problem("damaged", kind=self._kind)

    def _packed(self, info: zipfile.ZipInfo) -> memoryview:
        try:
            mark, name, extra = struct.unpack_from("<4s22xHH", self._data, info.header_offset)
        except struct.error as error:
            raise problem("damaged", kind=self._kind) from error
        start = info.header_offset + 30 + name + extra
        if mark != b"PK\x03\x04" or start + info.compress_size > len(self._data):
            raise problem("damaged", kind=self._kind)
        return memoryview(self._data)[start : start + info.compress_size]


def _inflate(packed: memoryview, method: int, kind: str) -> Iterator[bytes]:
    if method == zipfile.ZIP_STORED:
        yield bytes(packed)
        return
    if method != zipfile.ZIP_DEFLATED:
        raise problem("damaged", kind=kind)
    inflater = zlib.decompressobj(-15)
    rest: bytes | memoryview = packed
    while not inflater.eof:
        try:
            piece = inflater.decompress(rest, _STEP)
        except zlib.error as error:
            raise problem("damaged", kind=kind) from error
        if not piece and not inflater.eof and not inflater.unconsumed_tail:
            raise problem("damaged", kind=kind)
        rest = inflater.unconsumed_tail
        yield piece


def _check_overlap(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Members that share bytes are how a small file unpacks to petabytes."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise problem("bomb")
        end = info.header_offset + 30 + info.compress_size
    if end > size:
        raise problem("bomb")
