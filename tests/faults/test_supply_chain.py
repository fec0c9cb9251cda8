"""What is installed is what was locked, and nothing that is loaded can run code (faults 24 and 70)."""

from __future__ import annotations

import ast
import pickle
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from core.errors import DocumentError
from core.loaders import load

ROOT = Path(__file__).parents[2]
LOCKS = {
    name: ROOT / ".ci" / name for name in ("requirements.lock", "requirements-image.lock", "requirements-test.lock")
}
OURS = [path for folder in ("core", "bots", "admin", "configs") for path in (ROOT / folder).rglob("*.py")]
REFUSED = {
    *("torch", "transformers", "sentence-transformers", "instructorembedding", "langchain", "langchain-community"),
    *("litellm", "pymupdf", "ebooklib", "extract-msg", "markitdown", "joblib", "dill", "cloudpickle"),
}
"""Too heavy, unmaintained, of another licence, or made to run what they load (DESIGN, D19)."""

pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="the lists of pinned packages are not here")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Package -> (version, hashes) of a list of pinned packages."""
    found: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"\n(?=\S)", LOCKS[name].read_text("utf-8")):
        if block.strip() and not block.startswith("#"):
            package, _, rest = block.partition("==")
            version = re.split(r"[\s;\\]", rest, maxsplit=1)[0]
            found[canonicalize_name(package)] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_its_hashes_and_no_registry_is_named(name: str) -> None:
    """Protection: the lists in `.ci`; `make` installs with `--require-hashes` from them."""
    packages = locked(name)
    assert len(packages) > 50
    assert [package for package, (version, hashes) in packages.items() if not hashes or not Version(version)] == []
    text = LOCKS[name].read_text("utf-8")
    assert not re.search(r"https?://|--(?:extra-)?index|--find-links|--trusted-host|\bgit\+| @ |^-e|^-r", text, re.M)


def test_nothing_is_installed_beside_the_lists() -> None:
    for name in ("Makefile", ".ci/run"):
        for line in (ROOT / name).read_text("utf-8").splitlines():
            if re.search(r"\bpip install\b", line):
                assert "--require-hashes" in line or "--no-deps" in line, line


def test_the_lists_hold_what_the_project_asks_for() -> None:
    packages = locked("requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        version, _ = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_nothing_we_refuse_comes_along(name: str) -> None:
    packages = locked(name)
    assert packages.keys() & REFUSED == set()
    assert [package for package in packages if package.startswith(("nvidia-", "torch"))] == []


def test_what_both_lists_hold_is_the_same() -> None:
    tests = locked("requirements-test.lock")
    assert {name: pin for name, pin in locked("requirements.lock").items() if tests.get(name) != pin} == {}


# ---------------------------------------------------------------- code that runs what it loads
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"), ("os", "popen"),
    ("numpy", "load"), ("np", "load"), ("np", "fromfile"), ("onnx", "load"), ("torch", "load"),
}  # fmt: skip
FORBIDDEN_ARGUMENTS = {"trust_remote_code", "allow_pickle", "shell"}
FORBIDDEN_WORDS = FORBIDDEN_MODULES | FORBIDDEN_CALLS | FORBIDDEN_ARGUMENTS


def _may_offend(source: str) -> bool:
    """Whether the words for it are there at all; to look closely at everything takes long."""
    words = set(re.findall(r"\.?\w+", source))
    methods = any(module in words and words & {name, f".{name}"} for module, name in FORBIDDEN_METHODS)
    return methods or bool(words & FORBIDDEN_WORDS)


def _offences(source: str) -> Iterator[str]:
    if not _may_offend(source):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if (str(node.module), alias.name) in FORBIDDEN_METHODS)
        elif isinstance(node, ast.Call):
            yield from _bad_call(node)


def _bad_call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
        yield node.func.id
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        called = (node.func.value.id, node.func.attr)
        if called in FORBIDDEN_METHODS:
            yield ".".join(called)
    for keyword in node.keywords:
        is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in FORBIDDEN_ARGUMENTS and not is_off:
            yield str(keyword.arg)


def test_nothing_of_ours_runs_what_it_loads() -> None:
    """Protection: there is no such call; whoever writes one meets this test."""
    found = {str(path.relative_to(ROOT)): list(_offences(path.read_text("utf-8"))) for path in OURS}
    assert len(found) > 80
    assert {path: offences for path, offences in found.items() if offences} == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from torch import load", "torch.load(x)", "yaml.load(x)", "eval(x)",
     "subprocess.run(x, shell=True)",
     "np.load(x, allow_pickle=True)", "AutoModel.from_pretrained(x, trust_remote_code=True)"],
)  # fmt: skip
def test_the_test_finds_what_it_looks_for(code: str) -> None:
    assert list(_offences(code))


def test_an_uploaded_pickle_is_refused(tmp_path: Path) -> None:
    """Protection: the kind of a file is told from its content (`core/loaders/kinds.py: kind_of`)."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]  # what unpickling would call

    data = pickle.dumps(Evil())
    for name in ("model.pkl", "index.faiss", "notes.txt", "page.html", "table.csv"):
        with pytest.raises(DocumentError):
            load(data, name, ocr=False, limit=1000)
    assert not (tmp_path / "owned").exists()
