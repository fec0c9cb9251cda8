"""What lies in a model's folder: looked at, and refused where it could run code, before any library reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from core.serving.driver import CannotLoad, Report

_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TELLING: Final = frozenset({".safetensors", ".json", ".txt", ".model", ".spm"})
_SILENT: Final = frozenset({"kvasir.json", "manifest.json", "trainer_state.json"})
"""They change no vector; the first one's prefixes are part of the fingerprint anyway."""
_MODULES: Final = frozenset(
    {"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "StaticEmbedding", "LogitScore"}
)
_OWN_NOW: Final = frozenset({"nomic_bert", "jina_embeddings_v3", "gte"})
"""Models that once came with code of their own, and that transformers itself knows since."""
_PIECE: Final = 8 << 20


def folder_of(values: Mapping[str, Any]) -> Path:
    """The folder in the settings. Raises CannotLoad where there is none."""
    named = str(values.get("model_dir") or "")
    if not named:
        raise CannotLoad("No model is named: set `model_dir` to its folder.")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise CannotLoad(f"There is no folder {folder}: set `model_dir` to the model's folder on the worker's machine.")
    return folder


def modules_of(folder: Path) -> list[Path]:
    """The folders of the model's modules, its own first. Raises CannotLoad for what is never run or read."""
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise CannotLoad(f"{folder} holds neither config.json nor modules.json: it is no model that can be loaded.")
    found = [folder]
    for module in _array(folder / "modules.json"):
        kind, path = str(module.get("type", "")), str(module.get("path", ""))
        library, _, name = kind.rpartition(".")
        if library.partition(".")[0] != "sentence_transformers" or name not in _MODULES:
            raise CannotLoad(f"The model in {folder} has a module «{kind}», which is not run: choose another model.")
        place = (folder / path).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise CannotLoad(f"{folder / 'modules.json'} names a place outside of the folder: {path}.")
        if path and place not in found:
            found.append(folder / path)
    for place in found:
        _refuse_pickles(place)
        _refuse_code(place)
    return found


def digest_of(files: Iterable[Path], base: Path, report: Report) -> str:
    """Hex sha256 over the files by name and content."""
    listed = sorted(set(files))
    total, done = sum(file.stat().st_size for file in listed), 0
    whole = hashlib.sha256()
    for file in listed:
        one = hashlib.sha256()
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                one.update(piece)
                done += len(piece)
                report("check", done, total)
        whole.update(f"{file.relative_to(base).as_posix()} {one.hexdigest()}\n".encode())
    return whole.hexdigest()


def telling_files(places: Iterable[Path]) -> list[Path]:
    """Those that make a vector what it is."""
    found = (file for place in places for file in place.iterdir() if file.is_file())
    return [file for file in found if file.suffix in _TELLING and file.name not in _SILENT]


def fingerprint_of(*parts: object) -> str:
    """Changes with any of the parts."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]


def object_in(file: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none. Raises CannotLoad for what is no JSON."""
    found = _read(file, {})
    return found if isinstance(found, dict) else {}


def _array(file: Path) -> list[dict[str, Any]]:
    found = _read(file, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _read(file: Path, otherwise: Any) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read as JSON: get the model's files once more.") from error


def _refuse_pickles(place: Path) -> None:
    """Weights in a pickle can run code when they are read."""
    pickles = [file for pattern in _PICKLES for file in place.glob(pattern) if file.name != "training_args.bin"]
    if pickles and not list(place.glob("*.safetensors")):
        raise CannotLoad(
            f"{pickles[0]} is a pickle, which can run code, and is not read: get the model as safetensors, or make "
            "them once from a file that you trust; the README of the embedders says how."
        )


def _refuse_code(place: Path) -> None:
    config = object_in(place / "config.json")
    own = config.get("auto_map")
    if isinstance(own, dict) and any(name.startswith("AutoModel") for name in own):
        if config.get("model_type") in _OWN_NOW:
            return
        raise CannotLoad(
            f"The model in {place} needs code that lies in its folder, and such code is never run: choose another "
            "model, or one that fastembed knows."
        )
