"""Building an extension, with a compiler of our own making; `make test-extension` has a real one."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.serving.driver import CannotLoad
from core.serving.drivers import exllama_build, exllama_toolkit
from core.serving.drivers.exllama_build import Build, build, built, provide, sources_of
from tests.processes import KVASIR, run

SOURCES = ("ext_bindings.cpp", "cuda/graph.cu", "cpp/sampling.cpp")
COMPILER = """
import json, os, pathlib, sys, threading, time
wanted = json.loads(sys.stdin.buffer.readline())
folder = pathlib.Path(wanted["folder"])
(folder / "told.json").write_text(json.dumps({**wanted, "environment": {
    key: os.environ.get(key) for key in ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS")}}))
plan = json.loads(pathlib.Path(sys.argv[1]).read_text())
if plan.get("log"):
    print(plan["log"])
    sys.exit(1)
for number, source in enumerate(wanted["sources"]):
    (folder / f"{number}.o").write_text("")
    time.sleep(plan.get("pause", 0))
(folder / f"{wanted['name']}.so").write_text("")
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exllama_build, "_LOOK_SECONDS", 0.02)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that lists sources as ExLlamaV2 does."""
    package = tmp_path / "site" / "exllamav2"
    (package / "exllamav2_ext" / "cuda").mkdir(parents=True)
    (package / "exllamav2_ext" / "cpp").mkdir()
    for name in SOURCES:
        (package / "exllamav2_ext" / name).write_text("")
    (package / "__init__.py").write_text("raise RuntimeError('it is never imported')")
    (package / "ext.py").write_text(
        f"raise RuntimeError('nor this')\nif True:\n    sources_ = \\\n    {list(SOURCES)!r}\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    return package


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CUDA as pip lays it out: `lib` without names that have no version."""
    home = tmp_path / "site" / "nvidia" / "cu13"
    for part in ("bin", "include", "nvvm", "lib"):
        (home / part).mkdir(parents=True)
    _program(home / "bin" / "nvcc", "echo 'Cuda compilation tools, release 13.2, V13.2.86'")
    for name in ("libcudart.so.13", "libcublas.so.13", "libcudart_static.a"):
        (home / "lib" / name).write_text("")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("g++", "ninja"):
        _program(programs / name, "true")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.syspath_prepend(home.parent.parent)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(programs)})
    (programs / "Python.h").write_text("")
    return home


@pytest.fixture
def wanted(tmp_path: Path, library: Path) -> Build:
    return Build("exllamav2", tmp_path / "build", ("9.0",), "2.15.0+cu132", "13.2")


def compiler(tmp_path: Path, **plan: object) -> tuple[str, ...]:
    (tmp_path / "compiler.py").write_text(COMPILER)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    return sys.executable, str(tmp_path / "compiler.py"), str(tmp_path / "plan.json")


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


# ---------------------------------------------------------------- building
def test_an_extension_is_built_once_with_its_progress(wanted: Build, toolkit: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folder = build(wanted, lambda *one: told.append(one), compiler(tmp_path, pause=0.1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert told[-1] == ("compile", 3, 3)
    assert {1, 2} & {done for _, done, _ in told}
    given = json.loads((folder / "told.json").read_text())
    assert [Path(one).name for one in given["sources"]] == [Path(one).name for one in SOURCES]
    assert "-std=c++20" in given["cflags"]
    assert "-std=c++20" in given["cuda_cflags"]
    assert given["environment"]["TORCH_CUDA_ARCH_LIST"] == "9.0"
    told.clear()
    assert build(wanted, lambda *one: told.append(one), ("no", "such", "program")) == folder
    assert told == []


def test_pips_cuda_is_laid_out_as_torch_expects_it(wanted: Build, toolkit: Path, tmp_path: Path) -> None:
    folder = build(wanted, lambda *_: None, compiler(tmp_path))
    home = Path(json.loads((folder / "told.json").read_text())["environment"]["CUDA_HOME"])
    assert (home / "bin" / "nvcc").is_file()
    assert (home / "lib64" / "libcudart.so").resolve() == toolkit / "lib" / "libcudart.so.13"
    assert (home / "lib64" / "libcublas.so.13").is_file()
    assert home != toolkit
    assert not (toolkit / "lib64").exists()


def test_what_serves_more_cards_serves_one_and_other_versions_serve_none(
    wanted: Build, toolkit: Path, tmp_path: Path
) -> None:
    both = replace(wanted, architectures=("8.6", "9.0"))
    folder = build(both, lambda *_: None, compiler(tmp_path))
    assert built(wanted) == folder
    assert built(replace(wanted, architectures=("8.0",))) is None
    assert built(replace(wanted, torch="2.14.0")) is None
    (folder / "exllamav2_ext.so").unlink()
    assert built(wanted) is None


def test_a_lock_that_a_killed_build_left_keeps_nobody_waiting(wanted: Build, toolkit: Path, tmp_path: Path) -> None:
    wanted.folder.mkdir(parents=True, mode=0o700)
    (wanted.folder / "lock").write_text("")
    build(wanted, lambda *_: None, compiler(tmp_path))
    assert not (wanted.folder / "lock").exists()


def test_a_second_process_waits_and_takes_what_the_first_has_built(
    wanted: Build, toolkit: Path, tmp_path: Path
) -> None:
    wanted.base.mkdir(mode=0o700)
    waits = threading.Event()
    with (wanted.base / f"{wanted.folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found: list[Path] = []

        def report(stage: str, _done: int, _total: int) -> None:
            if stage == "compile_wait":
                waits.set()

        def second() -> None:
            found.append(build(wanted, report, ("no", "such", "program")))

        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        wanted.folder.mkdir(mode=0o700)
        (wanted.folder / "exllamav2_ext.so").write_text("")
        (wanted.folder / "built.json").write_text(json.dumps({"architectures": ["9.0"]}))
    thread.join(10)
    assert found == [wanted.folder]


def test_compilers_end_with_who_wanted_them(wanted: Build, toolkit: Path, tmp_path: Path) -> None:
    """Also where that is killed: the process that compiles hears its input close.

    Ninja gives each compiler a process group of its own.
    """
    pids = tmp_path / "pids"
    child = tmp_path / "slow.py"
    child.write_text(
        "import os, subprocess, sys, threading\n"
        "from core.serving.drivers import exllama_compile\n"
        "sys.stdin.buffer.readline()\n"
        "threading.Thread(target=exllama_compile._watch, daemon=True).start()\n"
        "own = subprocess.Popen(['/bin/sleep', '600'], process_group=0)\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{own.pid}}\\n')\n"
        "own.wait()\n"
    )
    starts = tmp_path / "starts.py"
    starts.write_text(
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {str(child)!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "p.stdin.write(b'{}\\n'); p.stdin.flush(); time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(exllama_build.__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, str(starts)], env=environment)
    deadline = time.monotonic() + 20
    while not (pids.is_file() and pids.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    for pid in pids.read_text().split():
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# ---------------------------------------------------------------- what is missing
@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("host_config.h:164:2: error: #error -- unsupported GNU version! gcc versions later than 15", "CXX=g"),
        ("fatal error: Python.h: No such file or directory", "python3-dev"),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_121'", "newer CUDA"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "MAX_JOBS"),
        ("RuntimeError: Ninja is required to load C++ extensions", "pip install ninja"),
        ("quantize.cu:3:10: fatal error: curand_kernel.h: No such file or directory", "curand_kernel.h is missing"),
        ("x.cu(3): error: identifier foo is undefined\nninja: build stopped", "identifier foo is undefined"),
    ],
)
def test_what_a_compiler_says_becomes_a_sentence(
    wanted: Build, toolkit: Path, tmp_path: Path, log: str, words: str
) -> None:
    with pytest.raises(CannotLoad, match="could not be compiled") as caught:
        build(wanted, lambda *_: None, compiler(tmp_path, log=log))
    assert words in str(caught.value)
    assert "build.log" in str(caught.value)
    assert built(wanted) is None


def test_a_compiler_of_another_cuda_is_refused(wanted: Build, toolkit: Path) -> None:
    _program(toolkit / "bin" / "nvcc", "echo 'Cuda compilation tools, release 12.8, V12.8.93'")
    with pytest.raises(CannotLoad, match=r"CUDA 13\.2, and the compiler .* CUDA 12\.8"):
        build(wanted, lambda *_: None)


def test_what_is_not_there_is_named(
    wanted: Build, toolkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "programs" / "g++").unlink()
    with pytest.raises(CannotLoad, match="no C\\+\\+ compiler"):
        build(wanted, lambda *_: None)
    monkeypatch.setattr(exllama_toolkit, "_home", lambda _: None)
    with pytest.raises(CannotLoad, match=r"no CUDA compiler.*pip install 'kvasir"):
        build(wanted, lambda *_: None)


def test_nothing_is_loaded_from_where_others_may_write(wanted: Build, toolkit: Path, tmp_path: Path) -> None:
    wanted.base.mkdir()
    wanted.base.chmod(0o777)
    with pytest.raises(CannotLoad, match="others may write"):
        build(wanted, lambda *_: None, compiler(tmp_path))


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CannotLoad, match=r"pip install 'kvasir\[exllamav3\]'"):
        provide("exllamav3", None, ("9.0",), lambda *_: None)


def test_a_package_without_its_sources_is_said(library: Path) -> None:
    (library / "exllamav2_ext" / "ext_bindings.cpp").unlink()
    with pytest.raises(CannotLoad, match=r"without its sources \(ext_bindings.cpp\)"):
        sources_of("exllamav2")


def test_the_command_says_in_one_line_why_not(tmp_path: Path) -> None:
    """Here it lacks torch, or in the environment of models what there is to build for."""
    command = [KVASIR, "model", "build", "--kind", "exllamav2", "--into", str(tmp_path)]
    environment = {**os.environ, "KVASIR_DATA_DIR": str(tmp_path / "data"), "CUDA_VISIBLE_DEVICES": ""}
    told = run([*command, "--json"], env=environment, capture_output=True, text=True)
    assert told.returncode == 1
    assert json.loads(told.stdout)["error"]
    told = run([*command, "--arch", "x"], env=environment, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("kvasir: ")
    assert told.stderr.count("\n") == 1
