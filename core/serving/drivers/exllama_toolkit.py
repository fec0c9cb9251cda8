"""What compiles an extension on this machine: CUDA's compiler, and sentences for what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.serving.driver import CannotLoad

_RELEASE: Final = re.compile(r"release (\d+)\.(\d+)")
_VERSIONED: Final = re.compile(r"(lib[\w+-]+\.so)\.\d+$")
_SECONDS: Final = 60
_TELLING: Final[tuple[tuple[str, str], ...]] = (
    (
        r"unsupported GNU version|maximum required version by CUDA|gcc versions later than",
        "the C++ compiler is newer than this CUDA knows; name an older one: CXX=g++-13 CUDAHOSTCXX=g++-13",
    ),
    (
        r"minimum required version|C\+\+20 or later|#error .*C\+\+(17|20)|unrecognized command.line option .-std=c",
        "the C++ compiler is too old for C++20. Install g++ 11 or newer",
    ),
    (r"Python\.h: No such file", "Python's headers are missing; on Debian and Ubuntu: apt-get install python3-dev"),
    (
        r"fatal error: ((?:cu|nv|thrust/|cub/)[\w/]*\.h): No such file",
        "CUDA is here only in part: {0} is missing. With pip: pip install 'kvasir[cuda-compiler]'",
    ),
    (
        r"CUDA version \([\d.]+\) mismatches|detected CUDA version",
        "CUDA's compiler is of another version than the torch that is installed",
    ),
    (r"Ninja is required", "the package ninja is missing: pip install ninja"),
    (r"No space left on device", "the disk is full"),
    (
        r"Killed|out of memory allocating|cannot allocate memory",
        "memory ran out; set MAX_JOBS=1, so that one file is compiled at a time",
    ),
    (
        r"Unknown CUDA arch|Unsupported gpu architecture",
        "this CUDA does not know the card's architecture; install a newer CUDA",
    ),
    (r"No CUDA GPUs|list index out of range", "no card says what to build for; name it: --arch 9.0"),
)
"""What a compiler's log may hold, and what it means."""


@dataclass(frozen=True, slots=True)
class Toolkit:
    home: Path
    """A CUDA_HOME as torch expects one."""
    version: str
    compiler: str


def find_toolkit(cuda: str, base: Path) -> Toolkit:
    """CUDA's compiler for a torch of that CUDA; a layout of our own is made under `base` where pip brought it.

    Raises CannotLoad with what is to be installed.
    """
    major = cuda.partition(".")[0]
    home = _home(major)
    if home is None:
        raise CannotLoad(
            f"The extension has to be compiled once, and there is no CUDA compiler (nvcc). Install CUDA {major} with "
            "your system, or beside torch: pip install 'kvasir[cuda-compiler]'. An image can have it built beforehand: "
            "kvasir model build."
        )
    version = _version_of(home / "bin" / "nvcc")
    if version.partition(".")[0] != major:
        raise CannotLoad(
            f"torch is built for CUDA {cuda}, and the compiler in {home} is of CUDA {version}; both must be of the "
            f"same major version. Install CUDA {major} and name it by CUDA_HOME."
        )
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise CannotLoad(f"There is no C++ compiler ({compiler}); on Debian and Ubuntu: apt-get install g++")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        raise CannotLoad("Python's headers are missing; on Debian and Ubuntu: apt-get install python3-dev")
    if shutil.which("ninja", path=search_path()) is None and importlib.util.find_spec("ninja") is None:
        raise CannotLoad("The package ninja is missing: pip install ninja")
    return Toolkit(_laid_out(home, base), version, compiler)


def search_path() -> str:
    """PATH with the programs of this Python's environment before it."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def reason(log: str) -> str:
    """What a failed build's log means, in a sentence without its full stop; else its first error."""
    for pattern, sentence in _TELLING:
        if (found := re.search(pattern, log)) is not None:
            return sentence.format(*found.groups())
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return (errors[0] if errors else lines[-1] if lines else "the compiler said nothing")[:300]


def _home(major: str) -> Path | None:
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    on_path = shutil.which("nvcc")
    places = [Path(name) for name in named if name]
    places += [Path(on_path).resolve().parent.parent] if on_path else []
    places += [Path("/usr/local/cuda"), Path(f"/usr/local/cuda-{major}")]
    places += [Path(entry) / "nvidia" / f"cu{major}" for entry in sys.path if entry]
    return next((place for place in places if (place / "bin" / "nvcc").is_file()), None)


def _version_of(nvcc: Path) -> str:
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotLoad(f"{nvcc} does not run: {error}") from error
    found = _RELEASE.search(told.stdout)
    if found is None:
        raise CannotLoad(f"{nvcc} does not say its version.")
    return f"{found[1]}.{found[2]}"


def _laid_out(home: Path, base: Path) -> Path:
    """The same as torch expects it: packages of pip have `lib`, and names without versions are missing there."""
    if (home / "lib64").is_dir():
        return home
    own = base / f"cuda-{home.name}"
    libraries = own / "lib64"
    libraries.mkdir(parents=True, exist_ok=True)
    for part in ("bin", "include", "nvvm"):
        if (home / part).is_dir():
            _link(own / part, home / part)
    for file in sorted((home / "lib").glob("lib*.so*")):
        _link(libraries / file.name, file)
        versioned = _VERSIONED.fullmatch(file.name)
        if versioned and not (home / "lib" / versioned[1]).exists():
            _link(libraries / versioned[1], file)
    return own


def _link(place: Path, target: Path) -> None:
    if place.is_symlink() and place.readlink() != target:
        place.unlink()
    if not place.is_symlink():
        place.symlink_to(target)
