"""What an ExLlama driver is told to do: the values of its section of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from core.serving.driver import CannotLoad
from core.serving.drivers.exllama_folder import PAGE, Library, cache_bits, memory_bytes, read_folder
from core.settings import ExllamaSettings

Chosen = TypeVar("Chosen", bound=ExllamaSettings)

USUAL_CONTEXT: Final = 16_384
"""Tokens of context where nothing else is said: enough for an answer with its passages, and small beside weights."""
MOST_DRAFTED: Final = 7


@dataclass(frozen=True, slots=True)
class Options:
    """The values, in bounds."""

    model_path: Path
    context_size: int = 0
    """0: the model's own, up to `usual_context`."""
    parallel: int = 4
    cache: str = "fp16"
    cache_size: int = 0
    """Tokens for all answers together; 0: as many as `context_size`."""
    chunk_size: int = 2048
    """Tokens of a prompt that are read in a step."""
    gpu_split: tuple[float, ...] = ()
    """GB for each card; empty: they are filled in turn."""
    gpu_reserve: tuple[float, ...] = ()
    """GB that are left free on each card that is filled in turn."""
    paged: str = "auto"
    draft_model_dir: Path | None = None
    ngram_draft: bool = False
    draft_tokens: int = 4
    lora_dir: Path | None = None
    lora_scale: float = 1.0
    rope_scale: float = 0.0
    rope_alpha: float = 0.0
    build_dir: Path | None = None
    usual_context: int = USUAL_CONTEXT

    @classmethod
    def read(cls, values: Mapping[str, Any], library: Library) -> Options:
        """Raises CannotLoad where a value cannot be, or two cannot be together."""
        path = values.get("model_path")
        if not path:
            raise CannotLoad("Set model_path to the model's folder.")
        cache = str(values.get("cache") or "fp16")
        cache_bits(cache, library)
        found = cls(
            model_path=_folder(path),
            context_size=int(values.get("context_size") or 0),
            parallel=int(values.get("parallel") or 1),
            cache=cache,
            cache_size=-(-int(values.get("cache_size") or 0) // PAGE) * PAGE,
            chunk_size=max(PAGE, int(values.get("chunk_size") or 2048) // PAGE * PAGE),
            gpu_split=tuple(float(one) for one in values.get("gpu_split") or ()),
            gpu_reserve=tuple(float(one) for one in values.get("gpu_reserve") or ()),
            paged=str(values.get("paged") or "auto"),
            draft_model_dir=_optional(values.get("draft_model_dir")),
            ngram_draft=bool(values.get("ngram_draft")),
            draft_tokens=min(MOST_DRAFTED, max(1, int(values.get("draft_tokens") or 4))),
            lora_dir=_optional(values.get("lora_dir")),
            lora_scale=float(values.get("lora_scale") or 1.0),
            rope_scale=float(values.get("rope_scale") or 0.0),
            rope_alpha=float(values.get("rope_alpha") or 0.0),
            build_dir=_optional(values.get("build_dir")),
        )
        if found.draft_model_dir is not None and found.ngram_draft:
            raise CannotLoad("Set draft_model_dir or ngram_draft, not both.")
        if found.gpu_split and found.gpu_reserve:
            raise CannotLoad("Set gpu_split or gpu_reserve, not both: what a card gets, or what is left free on it.")
        _check_lora(found.lora_dir)
        return found

    @property
    def drafted(self) -> int:
        """Tokens that are guessed ahead; 0 where none are."""
        return self.draft_tokens if self.draft_model_dir is not None or self.ngram_draft else 0

    @property
    def lora_files(self) -> tuple[Path, Path] | None:
        """Configuration and weights of the LoRA."""
        if self.lora_dir is None:
            return None
        return self.lora_dir / "adapter_config.json", self.lora_dir / "adapter_model.safetensors"


def memory_of(values: Mapping[str, Any], library: Library) -> int:
    """Bytes that the model of these values takes on its cards, the draft model among them. Raises CannotLoad."""
    options = Options.read(values, library)
    folder = read_folder(options.model_path, library)
    tokens = max(options.cache_size, options.context_size or min(folder.context_size, options.usual_context))
    told = {"tokens": tokens, "chunk": options.chunk_size}
    total = memory_bytes(folder, library, cache=options.cache, cards=max(1, len(options.gpu_split)), **told)
    if options.draft_model_dir is not None:
        total += memory_bytes(
            read_folder(options.draft_model_dir, library), library, cache=options.cache, cards=0, **told
        )
    return total


def with_build_dir(settings: Chosen, data_dir: Path) -> Chosen:
    """The same, with the folder of compiled extensions named."""
    if settings.build_dir is not None:
        return settings
    return settings.model_copy(update={"build_dir": data_dir / "workers" / "build"})


def _check_lora(folder: Path | None) -> None:
    if folder is None:
        return
    if not (folder / "adapter_model.safetensors").is_file():
        if (folder / "adapter_model.bin").is_file():
            raise CannotLoad(
                f"{folder.name} has its weights only as adapter_model.bin, which can run code of whoever made it; "
                "only safetensors are loaded."
            )
        raise CannotLoad(f"{folder.name} is no LoRA: it has no adapter_model.safetensors.")
    if not (folder / "adapter_config.json").is_file():
        raise CannotLoad(f"{folder.name} has no adapter_config.json.")


def _folder(value: Any) -> Path:
    return Path(str(value)).expanduser().absolute()


def _optional(value: Any) -> Path | None:
    return _folder(value) if value else None
