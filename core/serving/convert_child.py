"""The process that converts a model: run by its path, by a Python that may know nothing of Kvasir but this file.

One JSON object a line on stdout says how far it is: `stage`, or at the end `done` or `error`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
MISSING = 3
"""Exit status where a package is missing."""
BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def main(source: Path, target: Path, quantization: str, origin: dict[str, Any], parent: int) -> None:
    _end_with(parent)
    if missing := _missing():
        _say(error=f"missing:{','.join(missing)}")
        sys.exit(MISSING)
    try:
        _convert(source, target, quantization, origin)
    except Exception as error:  # noqa: BLE001  the outermost place of this process: its parent says the sentence
        _say(error=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")
        sys.exit(1)
    _say(done=True)


def _convert(source: Path, target: Path, quantization: str, origin: dict[str, Any]) -> None:
    _say(stage="import")
    import ctranslate2
    import transformers
    from ctranslate2.converters.transformers import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]  # the library has no types
        def load_model(self, model_class: Any, name: str, **values: Any) -> Any:
            """Weights that can run code are not read at all."""
            model = model_class.from_pretrained(name, use_safetensors=True, local_files_only=True, **values)
            _say(stage="quantize")
            return model

        def load_tokenizer(self, tokenizer_class: Any, name: str, **values: Any) -> Any:
            return tokenizer_class.from_pretrained(name, local_files_only=True, **values)

    transformers.utils.logging.set_verbosity_error()
    _say(stage="read")
    made = Converter(str(source), trust_remote_code=False)
    made.convert(str(target), quantization=quantization or None, force=True)
    _say(stage="write")
    if not (source / "tokenizer.json").is_file():
        transformers.AutoTokenizer.from_pretrained(str(source), local_files_only=True).save_pretrained(str(target))
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    versions = {"ctranslate2": ctranslate2.__version__, "transformers": transformers.__version__}
    (target / "kvasir.json").write_text(json.dumps({**origin, "made_by": versions}, indent=2))
    _say(stage="try")
    _try(ctranslate2, target)


def _try(library: Any, target: Path) -> None:
    """It loads, and writes a word."""
    if json.loads((target / "kvasir.json").read_text()).get("needs_cuda") and not library.get_cuda_device_count():
        return
    generator = library.Generator(str(target), device="auto", intra_threads=1)
    words = json.loads((target / "vocabulary.json").read_bytes())
    generator.generate_batch([[words[-1]]], max_length=1, include_prompt_in_result=False)


def _missing() -> list[str]:
    from importlib.util import find_spec

    return [name for name in ("ctranslate2", "torch", "transformers") if find_spec(name) is None]


def _end_with(parent: int) -> None:
    """Nobody waits for a conversion whose asker is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201  this is how it talks


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    main(Path(asked["source"]), Path(asked["target"]), asked["quantization"], asked["origin"], asked["parent"])
