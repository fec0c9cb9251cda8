"""Builds the libraries' CUDA extensions before they are imported: with progress, our flags, and a cache.

Left alone, both libraries compile at their first import, in silence, into a folder of the user, and ExLlamaV2 without
the C++20 that newer CUDA needs. Built here, `import exllamav2_ext` simply finds the file.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import importlib.util
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from core.serving.driver import CannotLoad, Report
from core.serving.drivers.exllama_compile import end_session
from core.serving.drivers.exllama_folder import Library
from core.serving.drivers.exllama_toolkit import Toolkit, find_toolkit, reason, search_path

logger = logging.getLogger(__name__)

LIBRARIES: Final[tuple[Library, ...]] = ("exllamav2", "exllamav3")
_STAMP: Final = "built.json"
_LOG: Final = "build.log"
_ARCHITECTURE: Final = re.compile(r"\d{1,2}\.\d[af]?")
_JOB_BYTES: Final = 2 * 1024**3
_LOOK_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 3600
"""A single file takes minutes; a compiler that finishes none in an hour hangs."""
_COMPILE: Final = (sys.executable, "-P", "-m", "core.serving.drivers.exllama_compile")


@dataclass(frozen=True, slots=True)
class Build:
    """An extension for this environment and these cards."""

    library: Library
    base: Path
    architectures: tuple[str, ...]
    torch: str
    cuda: str

    @property
    def name(self) -> str:
        return f"{self.library}_ext"

    @property
    def prefix(self) -> str:
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        parts = [
            self.library,
            _version(self.library),
            f"torch{self.torch}",
            f"cu{self.cuda}",
            python,
            platform.machine(),
        ]
        return re.sub(r"[^\w.-]", "_", "-".join(parts))

    @property
    def folder(self) -> Path:
        return self.base / f"{self.prefix}-sm{'-'.join(self.architectures)}"


# ---------------------------------------------------------------- for drivers
def provide(library: Library, base: Path | None, architectures: Sequence[str], report: Report) -> None:
    """Make the library's extension importable, building it where it is not there yet. Raises CannotLoad."""
    if importlib.util.find_spec(library) is None:
        raise CannotLoad(f"{library} is not installed; install it with: pip install 'kvasir[{library}]'")
    if _is_importable(f"{library}_ext"):
        return
    folder = build(_planned(library, base, architectures), report)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def build(wanted: Build, report: Report, command: Sequence[str] = _COMPILE) -> Path:
    """The folder with the finished extension; built now where there is none. Raises CannotLoad."""
    found = built(wanted)
    if found is not None:
        return found
    _make_private(wanted.base)
    with _alone(wanted.base / f"{wanted.folder.name}.lock", report):
        found = built(wanted)  # somebody else may have built it while we waited
        if found is not None:
            return found
        toolkit = find_toolkit(wanted.cuda, wanted.base)
        _make_private(wanted.folder)
        sources = sources_of(wanted.library)
        _compile(wanted, toolkit, sources, report, command)
        stamp = {"library": wanted.library, "architectures": list(wanted.architectures), "compiler": toolkit.version}
        (wanted.folder / _STAMP).write_text(json.dumps(stamp))
    return wanted.folder


def built(wanted: Build) -> Path | None:
    """A finished one that serves these cards; None where there is none."""
    for stamp in sorted(wanted.base.glob(f"{wanted.prefix}-sm*/{_STAMP}")):
        try:
            has = set(json.loads(stamp.read_text())["architectures"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if has.issuperset(wanted.architectures) and (stamp.parent / f"{wanted.name}.so").is_file():
            return stamp.parent
    return None


def default_base() -> Path:
    """Where extensions are kept when nobody says: in the data directory."""
    from core.settings import load

    return load().data_dir / "workers" / "build"


# ---------------------------------------------------------------- what is compiled
def sources_of(library: Library) -> list[Path]:
    """The extension's sources, as the installed library lists them."""
    package = _package(library)
    folder = package / f"{library}_ext"
    if library == "exllamav2":
        found = [folder / name for name in _listed(package / "ext.py", "sources_")]
    else:
        found = [Path(name) for name in _flags(package).extension_sources(str(folder))]
    missing = [one.name for one in found if not one.is_file()]
    if missing or not found:
        raise CannotLoad(f"{library} was installed without its sources ({', '.join(missing[:3]) or 'all'}).")
    return found


def flags_of(library: Library, home: Path) -> tuple[list[str], list[str]]:
    """Flags for C++ and for CUDA. C++20 by name: nvcc 13 does not get through torch's headers with less."""
    if library == "exllamav2":
        return ["-Ofast", "-std=c++20"], ["-lineinfo", "-O3", "-std=c++20"]
    own = list(_flags(_package(library)).cuda_cflags(str(home)))
    host = os.environ.get("CUDAHOSTCXX")
    return ["-Ofast", "-std=c++20"], [*own, "-std=c++20", *(["-ccbin", host] if host else [])]


def _flags(package: Path) -> Any:
    """ExLlamaV3's own list of flags and sources, which needs none of the rest of it."""
    spec = importlib.util.spec_from_file_location("exllamav3_cuda_flags", package / "util" / "cuda_flags.py")
    if spec is None or spec.loader is None:
        raise CannotLoad("exllamav3 was installed without its list of sources.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise CannotLoad("exllamav3 was installed without its list of sources.") from error
    return module


def _listed(file: Path, name: str) -> list[str]:
    """The texts of the list that a module sets under that name, without running it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return [str(one) for one in ast.literal_eval(node.value)]
    return []


# ---------------------------------------------------------------- compiling
def _compile(wanted: Build, toolkit: Toolkit, sources: Sequence[Path], report: Report, command: Sequence[str]) -> None:
    cflags, cuda_cflags = flags_of(wanted.library, toolkit.home)
    told = {
        "name": wanted.name,
        "folder": str(wanted.folder),
        "sources": [str(one) for one in sources],
        "includes": [str(_package(wanted.library) / wanted.name)],
        "cflags": cflags,
        "cuda_cflags": cuda_cflags,
    }
    environment = {
        **os.environ,
        "PATH": search_path(),
        "CUDA_HOME": str(toolkit.home),
        "TORCH_CUDA_ARCH_LIST": ";".join(wanted.architectures),
        "MAX_JOBS": os.environ.get("MAX_JOBS") or str(_jobs()),
    }
    (wanted.folder / "lock").unlink(
        missing_ok=True
    )  # left by a build that was killed; older torch waits for it for ever
    logger.info("compiling %s for %s in %s", wanted.name, ", ".join(wanted.architectures), wanted.folder)
    with (wanted.folder / _LOG).open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        if child.stdin is not None:
            child.stdin.write(json.dumps(told).encode() + b"\n")
            child.stdin.flush()
        _follow(child, wanted, len(sources), report)
    finally:
        if child.poll() is None:
            end_session(child.pid)
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
    if child.returncode != 0 or not (wanted.folder / f"{wanted.name}.so").is_file():
        log_text = (wanted.folder / _LOG).read_text(errors="replace")
        raise CannotLoad(f"{wanted.name} could not be compiled: {reason(log_text)}. All of it: {wanted.folder / _LOG}")


def _follow(child: subprocess.Popen[bytes], wanted: Build, total: int, report: Report) -> None:
    """Until it ends; tells how many files are compiled. Raises CannotLoad where nothing more comes."""
    done, moved = -1, time.monotonic()
    while child.poll() is None:
        now = sum(1 for _ in wanted.folder.glob("*.o"))
        if now != done:
            done, moved = now, time.monotonic()
        if time.monotonic() - moved > _SILENT_SECONDS:
            raise CannotLoad(f"{wanted.name} could not be compiled: the compiler hangs. See {wanted.folder / _LOG}")
        report("compile", min(now, total), total)
        time.sleep(_LOOK_SECONDS)
    report("compile", total, total)


def _jobs() -> int:
    """Compilers at a time: one for each processor that this process may use, and as many as memory holds."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), int(free // _JOB_BYTES)))


@contextmanager
def _alone(file: Path, report: Report) -> Iterator[None]:
    """One build at a time in a folder; the lock goes with its holder, however that ends."""
    with file.open("a") as opened:
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("compile_wait", 0, 1)
                time.sleep(_LOOK_SECONDS)
        yield


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotLoad(f"{folder} cannot be made: {error.strerror}.") from error
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise CannotLoad(f"{folder} belongs to others, or others may write there; nothing is loaded from it.")


# ---------------------------------------------------------------- this environment
def _planned(library: Library, base: Path | None, architectures: Sequence[str]) -> Build:
    try:
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise CannotLoad(f"torch is not installed; install it with: pip install 'kvasir[{library}]'") from error
    if not torch.version.cuda:
        raise CannotLoad(f"{library} needs torch for CUDA; {torch.__version__} has none.")
    wanted = tuple(sorted(set(architectures))) or _visible(torch)
    if not wanted:
        raise CannotLoad("No card says what to build for; name it: --arch 9.0")
    for one in wanted:
        if not _ARCHITECTURE.fullmatch(one):
            raise CannotLoad(f"«{one}» is no compute capability; they look like 8.6 or 9.0.")
    return Build(library, (base or default_base()).absolute(), wanted, str(torch.__version__), str(torch.version.cuda))


def _visible(torch: Any) -> tuple[str, ...]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    pairs = {torch.cuda.get_device_capability(number) for number in range(count)}
    return tuple(f"{major}.{minor}" for major, minor in sorted(pairs))


def _is_importable(name: str) -> bool:
    """Whether it came with the library's wheel, or was built before."""
    found = importlib.util.find_spec(name)
    origin = (found.origin or "") if found is not None else ""
    return any(origin.endswith(suffix) for suffix in EXTENSION_SUFFIXES)


def _package(library: Library) -> Path:
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        raise CannotLoad(f"{library} is not installed; install it with: pip install 'kvasir[{library}]'")
    return Path(found.origin).parent


def _version(library: Library) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "0"


# ---------------------------------------------------------------- by hand
def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """`python -P -m core.serving.drivers.exllama_build`: lines of JSON; the last has `folder` or `error`."""
    parser = argparse.ArgumentParser(prog="exllama_build")
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--arch", action="append", default=[])
    given = parser.parse_args(arguments)

    told = ("", -1)

    def report(stage: str, done: int, total: int) -> None:
        nonlocal told
        if (stage, done) != told:
            told = (stage, done)
            say(json.dumps({"stage": stage, "done": done, "total": total}))

    try:
        folder = build(_planned(given.library, given.into, given.arch), report)
    except CannotLoad as error:
        say(json.dumps({"error": str(error)}))
        return 1
    say(json.dumps({"folder": str(folder)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
