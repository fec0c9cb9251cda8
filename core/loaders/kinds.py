"""What kind of file this is: by its content first, by its name second; where they contradict, it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from core.loaders.archive import Archive
from core.loaders.options import problem

_TEXTS: Final[Mapping[str, str]] = {
    "md": ".md .markdown .mdown .mkd .mdx",
    "txt": ".txt .text .log",
    "rst": ".rst .rest",
    "html": ".html .htm .xhtml",
    "mhtml": ".mhtml .mht",
    "csv": ".csv",
    "tsv": ".tsv .tab",
    "json": ".json",
    "jsonl": ".jsonl .ndjson",
    "eml": ".eml",
    "ipynb": ".ipynb",
    "xml": ".xml .svg",
    "srt": ".srt .vtt",
    "rtf": ".rtf",
    "code": (
        ".toml .yaml .yml .ini .cfg .conf .properties .py .pyi .js .mjs .cjs .jsx .ts .tsx .java .kt .kts "
        ".scala .groovy .gradle .c .h .cc .cpp .cxx .hpp .hh .cs .fs .go .rs .rb .php .swift .m .mm .r .jl "
        ".lua .pl .pm .sh .bash .zsh .fish .ps1 .bat .cmd .sql .css .scss .sass .less .vue .svelte .dart .ex "
        ".exs .erl .hrl .hs .ml .mli .clj .cljs .lisp .el .vim .tex .bib .proto .graphql .tf .hcl .cmake .mk "
        ".diff .patch .asm .s .f90 .pas .zig .nim .sol"
    ),
}
_BINARIES: Final[Mapping[str, str]] = {
    "pdf": ".pdf",
    "docx": ".docx .docm",
    "pptx": ".pptx .pptm",
    "xlsx": ".xlsx .xlsm .xlsb",
    "xls": ".xls",
    "ods": ".ods",
    "odt": ".odt",
    "odp": ".odp",
    "epub": ".epub",
    "png": ".png",
    "jpeg": ".jpg .jpeg",
    "webp": ".webp",
    "bmp": ".bmp",
    "tiff": ".tif .tiff",
}
BY_SUFFIX: Final[Mapping[str, str]] = {
    suffix: kind for kinds in (_TEXTS, _BINARIES) for kind, suffixes in kinds.items() for suffix in suffixes.split()
}
SUFFIXES: Final[frozenset[str]] = frozenset(BY_SUFFIX)
"""Those of all files that can be read, lower-case and with their dot."""

_PICTURES: Final = ("png", "jpeg", "webp", "bmp", "tiff")
_TEXT_NAMES: Final = frozenset({"readme", "license", "copying", "notice", "authors", "changelog", "changes", "todo"})
_CODE_NAMES: Final = frozenset(
    {"makefile", "dockerfile", "jenkinsfile", "vagrantfile", "gemfile", "rakefile", "procfile"}
)
_PICKLES: Final = frozenset(
    [
        ".pkl",
        ".pickle",
        ".p",
        ".joblib",
        ".dill",
        ".pt",
        ".pth",
        ".ckpt",
        ".npy",
        ".npz",
        ".faiss",
        ".index",
        ".h5",
        ".hdf5",
        ".keras",
        ".pb",
        ".onnx",
        ".safetensors",
        ".gguf",
        ".ggml",
        ".model",
        ".marshal",
        ".pyc",
    ]
)
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "md": "text/markdown",
    "txt": "text/plain",
    "code": "text/plain",
    "rst": "text/x-rst",
    "html": "text/html",
    "mhtml": "multipart/related",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "eml": "message/rfc822",
    "ipynb": "application/x-ipynb+json",
    "xml": "application/xml",
    "srt": "application/x-subrip",
    "rtf": "application/rtf",
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xls": "application/vnd.ms-excel",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "epub": "application/epub+zip",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "zip": "application/zip",
}
UNKNOWN_TYPE: Final = "application/octet-stream"

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"%PDF-", "pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (b"{\\rtf", "rtf"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"GIF8", "GIF"),
    (b"\x7fELF", "ELF"),
    (b"\xca\xfe\xba\xbe", "CLASS"),
    (b"\xcf\xfa\xed\xfe", "MACH-O"),
    (b"\x00asm", "WASM"),
    (b"\x1f\x8b", "GZIP"),
    (b"7z\xbc\xaf\x27\x1c", "7Z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\xfd7zXZ\x00", "XZ"),
    (b"\x28\xb5\x2f\xfd", "ZSTD"),
    (b"SQLite format 3\x00", "SQLITE"),
    (b"PAR1", "PARQUET"),
    (b"\x93NUMPY", "pickle"),
    (b"\x89HDF\r\n", "pickle"),
    (b"GGUF\x02\x00", "pickle"),
    (b"GGUF\x03\x00", "pickle"),
    (b"IxF2", "pickle"),
    (b"IxFI", "pickle"),
    (b"IxMp", "pickle"),
    (b"IwFl", "pickle"),
    (b"ID3\x03", "MP3"),
    (b"ID3\x04", "MP3"),
    (b"OggS", "OGG"),
    (b"fLaC", "FLAC"),
    (b"\x00\x00\x01\xba", "MPEG"),
)
_FIRST: Final = frozenset(mark[0] for mark, _ in _MAGIC) | frozenset(b"BMR\x80")
_ARCHIVES: Final = frozenset({"zip", "GZIP", "7Z", "RAR", "XZ", "ZSTD", "TAR", "BZIP2"})
_ALSO: Final[Mapping[str, frozenset[str]]] = {
    # content: kinds whose suffix it may bear; programs and people are that careless, and it does no harm
    "html": frozenset({"html", "mhtml", "txt", "md", "xml", "xls"}),
    "rtf": frozenset({"rtf", "doc", "txt"}),
    "docx": frozenset({"docx", "doc"}),
    "pptx": frozenset({"pptx", "ppt"}),
    "xlsx": frozenset({"xlsx", "xls"}),
    **{kind: frozenset(_PICTURES) for kind in _PICTURES},
}
_OLD: Final[Mapping[str, str]] = {".doc": "doc", ".ppt": "ppt", ".dot": "doc", ".pps": "ppt"}


def suffix_of(name: str) -> str:
    stem, dot, suffix = name.rpartition("/")[2].rstrip(" .").rpartition(".")
    return f".{suffix.lower()}" if dot and stem.strip(".") else ""


def kind_of(data: bytes, name: str) -> str:
    """One of the kinds above. Raises DocumentError for a file that is not read, or is not what its name says."""
    suffix = suffix_of(name)
    if suffix in _PICKLES:
        raise problem("pickle")
    named = BY_SUFFIX.get(suffix) or _OLD.get(suffix)
    found = _by_content(data)
    if found == "zip":
        found = _in_zip(data)
    elif found == "ole":
        found = _in_ole(data)
    if found == "pickle":
        raise problem("pickle")
    if found:
        return _agreed(found, named, suffix)
    return _text_kind(data, name, named, suffix)


def media_type(head: bytes, name: str) -> str:
    """The media type to note for a file, from its first bytes (a few hundred will do) and its name; never a promise."""
    named = BY_SUFFIX.get(suffix_of(name))
    found = _by_content(head)
    if found == "zip":
        found = _type_in_head(head) or (named if named in ("docx", "pptx", "xlsx") else "zip")
    elif found == "ole":
        found = named if named == "xls" else None
        return MEDIA_TYPES.get(found or "", UNKNOWN_TYPE)
    if found:
        return MEDIA_TYPES.get(found, UNKNOWN_TYPE)
    if named is not None and named in _TEXTS:
        return MEDIA_TYPES[named]
    return UNKNOWN_TYPE if named or b"\x00" in head else "text/plain"


def _agreed(found: str, named: str | None, suffix: str) -> str:
    if found in _ARCHIVES and named is None:
        raise problem("archive", found=found.upper())
    known = found in MEDIA_TYPES and found != "zip"
    if named is not None and named != found and named not in _ALSO.get(found, ()):
        raise problem("mismatch", suffix=suffix, found=found.upper())
    if not known:
        raise problem("unsupported", found=found.upper())
    if found == "html" and named in ("mhtml", "xml"):
        return named
    return found


def _text_kind(data: bytes, name: str, named: str | None, suffix: str) -> str:
    if named == "pdf" and b"%PDF-" in data[:1024]:
        return "pdf"
    if named in _BINARIES or named in _OLD.values():
        raise problem("damaged", kind=suffix.removeprefix(".").upper())
    if _is_binary(data):
        if suffix:
            raise problem("mismatch_binary", suffix=suffix) if named else problem("unsupported", found=suffix)
        raise problem("unsupported", found="?")
    if named is not None:
        return named
    stem = PurePosixPath(name).name.lower().split(".")[0]
    if stem in _CODE_NAMES:
        return "code"
    if not suffix or stem in _TEXT_NAMES:
        return "txt"
    raise problem("unsupported", found=suffix)


def _by_content(data: bytes) -> str | None:
    """What the first bytes say; None for text, and for what they do not tell."""
    if data[:1] and data[0] in _FIRST:
        for mark, kind in _MAGIC:
            if data.startswith(mark):
                return kind
        found = _by_more(data)
        if found:
            return found
    if data[257:262] == b"ustar":
        return "TAR"
    if data[4:8] == b"ftyp":
        return "MP4"
    start = data[:1024].lstrip(b"\xef\xbb\xbf\x00 \t\r\n")[:15].lower()
    if start.startswith(b"%pdf-"):
        return "pdf"
    return "html" if start.startswith((b"<!doctype html", b"<html")) else None


def _by_more(data: bytes) -> str | None:
    if data[:2] == b"MZ" and (b"\x00" in data[:256] or b"This program" in data[:256]):
        return "EXE"
    if data[:2] == b"BM" and len(data) > 26 and data[6:10] == b"\x00\x00\x00\x00":
        return "bmp"
    if data[:4] == b"RIFF":
        return "webp" if data[8:12] == b"WEBP" else "RIFF"
    if data[:3] == b"BZh" and data[4:10] == b"1AY&SY":
        return "BZIP2"
    if (
        data[0] == 0x80
        and len(data) > 2
        and 2 <= data[1] <= 5
        and data[2:3] in b"\x95}](cX\x8ccN.K"
        and data[-1:] == b"."
    ):
        return "pickle"
    return None


def _is_binary(data: bytes) -> bool:
    """Whether it holds zero bytes in a way that no text does."""
    head = data[:4096]
    zeros = head.count(0)
    if not zeros:
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        return False
    even = head[::2].count(0)
    if zeros >= len(head) // 50 and max(even, zeros - even) > 0.9 * zeros and data[:1] != b"\x7f":
        return False  # UTF-16 without a mark: its zeros stand on one side
    if len(data) % 4 == 0 and all(head[at : at + 4].count(0) >= 2 for at in range(0, min(len(head), 64), 4)):
        return False  # UTF-32 without a mark
    printable = sum(byte >= 32 or byte in (9, 10, 13) for byte in head)
    return printable < 0.9 * len(head)


def _in_zip(data: bytes) -> str:
    archive = Archive(data, "ZIP")
    names = set(archive.names())
    if "mimetype" in names:
        return _by_mimetype(archive.read("mimetype")[:100]) or "zip"
    if "EncryptedPackage" in names:
        raise problem("encrypted")
    if any(name.endswith(("data.pkl", ".pkl", ".npy")) for name in names):
        return "pickle"
    for start, kind in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if "[Content_Types].xml" in names and any(name.startswith(start) for name in names):
            return kind
    if "content.xml" in names:
        return "odt"
    return "epub" if "META-INF/container.xml" in names else "zip"


def _by_mimetype(mimetype: bytes) -> str | None:
    value = mimetype.strip().decode("ascii", "replace").removesuffix("-template")
    return next((kind for kind, media in MEDIA_TYPES.items() if media == value), None)


def _type_in_head(head: bytes) -> str | None:
    if head[30:38] != b"mimetype":
        return None
    return next(
        (kind for kind in ("epub", "odt", "ods", "odp") if head[38:].startswith(MEDIA_TYPES[kind].encode())), None
    )


def _in_ole(data: bytes) -> str:
    """Which of the old Office programs wrote it, by the names of its streams (UTF-16 in the directory)."""
    for stream, kind in (
        ("EncryptedPackage", "encrypted"),
        ("WordDocument", "doc"),
        ("PowerPoint Document", "ppt"),
        ("Workbook", "xls"),
        ("Book", "xls"),
        ("__substg1.0_", "msg"),
    ):
        if stream.encode("utf-16-le") in data:
            if kind == "encrypted":
                raise problem("encrypted")
            return kind
    return "ole"
