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


LEAST_ALIKE = 0.95
LONGEST = 256
SAMPLE = (
    "Every employee has twenty-eight days of annual leave. It is asked for two weeks before it begins; who has asked "
    "first has it first, and what is left in December goes into the next year. Part-time staff have their share of it. "
    "年假为二十八天，请至少提前两周申请；先申请者优先，十二月剩余的假期可转入下一年。兼职员工按比例享有。\n\n"
    "| place | days |\n|---|---|\n| Bergen | 28 |\n| Turku | 30 |\n\n"
    "def days(share: float) -> int:\n    return round(28 * share)\n\n"
    "Question: How long is annual leave in Bergen? Answer:"
)


def main(source: Path, target: Path, quantization: str, origin: dict[str, Any], parent: int) -> None:
    _end_with(parent)
    if missing := _missing():
        _say(error=f"missing:{','.join(missing)}")
        sys.exit(MISSING)
    try:
        _convert(source, target, quantization, origin)
    except Differs as error:
        _say(error=f"differs:{error}")
        sys.exit(1)
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
            self.model = model_class.from_pretrained(name, use_safetensors=True, local_files_only=True, **values)
            return self.model

        def load_tokenizer(self, tokenizer_class: Any, name: str, **values: Any) -> Any:
            tokenizer = tokenizer_class.from_pretrained(name, local_files_only=True, **values)
            self.ids, self.expected = _thoughts(self.model, tokenizer)
            _say(stage="quantize")
            return tokenizer

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
    _say(stage="try")
    alike = 0.0
    if not origin.get("needs_cuda") or ctranslate2.get_cuda_device_count():
        alike = _alike(ctranslate2, target, made.ids, made.expected)
    (target / "kvasir.json").write_text(json.dumps({**origin, "alike": round(alike, 4), "made_by": versions}, indent=2))


def _thoughts(model: Any, tokenizer: Any) -> tuple[list[int], Any]:
    """A text in tokens, and what the published model thinks may come after each."""
    import torch

    ids = tokenizer(SAMPLE)["input_ids"][:LONGEST]
    with torch.no_grad():
        return ids, model(torch.tensor([ids])).logits[0].float().numpy()


def _alike(library: Any, target: Path, ids: list[int], expected: Any) -> float:
    """Mean correlation of what both think. Raises Differs: converters do not know every trick of every model."""
    import numpy as np

    found = _converted_thoughts(library, target, ids)
    size = min(found.shape[-1], expected.shape[-1])
    pairs = zip(found[:, :size], expected[:, :size], strict=True)
    alike = float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))
    if not alike >= LEAST_ALIKE:
        raise Differs(f"{alike:.3f}")
    return alike


def _converted_thoughts(library: Any, target: Path, ids: list[int]) -> Any:
    import numpy as np

    generator = library.Generator(str(target), device="auto", intra_threads=max(1, (os.cpu_count() or 2) // 2))
    words = json.loads((target / "vocabulary.json").read_bytes())
    return np.array(generator.forward_batch([[words[token] for token in ids]])).astype(np.float32)[0]


class Differs(Exception):
    """The converted model does not think as the published one does."""


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
