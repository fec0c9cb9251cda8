"""ExLlamaV3: EXL3 and FP16, on NVIDIA cards; it needs no flash-attn."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

from core.serving.driver import Job, Report, Scalar
from core.serving.drivers.exllama import ExLlamaDriver, Loaded, Plan
from core.serving.drivers.exllama_build import provide
from core.serving.drivers.exllama_cards import cards_of, used_bytes
from core.serving.drivers.exllama_folder import Library, cache_bits
from core.serving.drivers.exllama_grammar import Grammar

logger = logging.getLogger(__name__)

_FP16: Final = 16
_USUAL_RESERVE: Final = 0.5
"""GB that the library itself leaves on a card."""
_LEAST_MATCH: Final = 3
"""Tokens that have come before in the same order, for those behind them to be guessed."""
_WHOLE_RANGE: Final = 10**8


def make(values: Mapping[str, Any]) -> ExLlamaDriver:
    """The driver for these values. Raises CannotLoad."""
    return ExLlamaDriver(values, ExLlamaV3())


class ExLlamaV3:
    name: Library = "exllamav3"

    def load(self, plan: Plan, report: Report) -> Loaded:
        torch = import_module("torch")
        cards = cards_of(torch, self.name)
        provide(self.name, plan.options.build_dir, cards.architectures, report)
        return _Loading(torch, import_module("exllamav3"), plan, report).run(cards.told)


class _Loading:
    """One model, from its folder to its generator."""

    def __init__(self, torch: Any, library: Any, plan: Plan, report: Report) -> None:
        self.torch, self.library = torch, library
        self.plan, self.options, self.report = plan, plan.options, report
        self.chunk = min(self.options.chunk_size, plan.cache_tokens)
        self.tokenizer: Any = None

    def run(self, told: str) -> Loaded:
        plan, options = self.plan, self.options
        draft = draft_cache = None
        if plan.draft_path is not None:
            draft, draft_cache, _ = self.model(str(plan.draft_path), "draft")
        model, cached, config = self.model(str(plan.path), "weights")
        notes = self.rehearse(model, cached)
        if options.lora_files is not None:
            made = import_module("exllamav3.model.lora").LoRA
            made(model, str(options.lora_files[0]), str(options.lora_files[1]), options.lora_scale)
        self.report("start", 0, 1)
        self.tokenizer = self.library.Tokenizer.from_config(config)
        generator = self.library.Generator(
            model=model,
            cache=cached,
            tokenizer=self.tokenizer,
            max_batch_size=options.parallel,
            max_chunk_size=self.chunk,
            draft_model=draft,
            draft_cache=draft_cache,
            num_draft_tokens=options.draft_tokens if options.drafted else None,
            ngram_match_min=_LEAST_MATCH if options.ngram_draft else 0,
        )
        self.report("start", 1, 1)
        details: dict[str, Scalar] = {
            "device": told,
            "memory_bytes": used_bytes(self.torch),
            "library": f"exllamav3 {_version()}, torch {self.torch.__version__}",
            **notes,
        }

        def close() -> None:
            generator.close()
            model.unload()
            if draft is not None:
                draft.unload()

        return Loaded(generator, self.new_job, close, int(generator.max_batch_size), "paged", details)

    # ------------------------------------------------------------ its parts
    def model(self, path: str, stage: str) -> tuple[Any, Any, Any]:
        """The model with its cache, loaded on the cards, and its configuration."""
        library, options = self.library, self.options
        config = library.Config.from_directory(path)
        model = library.Model.from_config(config)
        keys, values = cache_bits(options.cache, "exllamav3")
        kind: dict[str, Any] = {"layer_type": library.CacheLayer_fp16}
        if keys != _FP16:
            kind = {"layer_type": library.CacheLayer_quant, "k_bits": keys, "v_bits": values}
        cached = library.Cache(
            model,
            max_num_tokens=self.plan.cache_tokens,
            max_batch_size=options.parallel,
            max_history=options.drafted,
            **kind,
        )
        model.load(
            callback=lambda done, total: self.report(stage, done, total),
            progressbar=False,
            max_chunk_size=self.chunk,
            max_batch_size=options.parallel,
            **self.split(),
        )
        return model, cached, config

    def split(self) -> dict[str, list[float]]:
        if self.options.gpu_split:
            return {"use_per_device": list(self.options.gpu_split)}
        if not self.options.gpu_reserve:
            return {}
        more = max(0, self.torch.cuda.device_count() - len(self.options.gpu_reserve))
        return {"reserve_per_device": [*self.options.gpu_reserve, *[_USUAL_RESERVE] * more]}

    def rehearse(self, model: Any, cached: Any) -> dict[str, str]:
        """Kernels are tuned, and the longest step is made, so that a lack of memory shows now, not with a question."""
        failed = model.warmup(
            cached,
            max_chunk_size=self.chunk,
            max_batch_size=min(8, self.options.parallel),
            callback=lambda done, total: self.report("rehearse", done, total),
        )
        if failed:
            logger.warning("warming up failed: %s", "; ".join(map(str, failed)))
        if not model.get_recurrent_layers():
            params = {
                "attn_mode": "flash_attn",
                "cache": cached,
                "batch_shape": (1, self.plan.cache_tokens),
                "past_len": self.plan.cache_tokens - self.chunk,
                "last_tokens_only": 1,
            }
            with self.torch.inference_mode():
                model.forward(self.torch.zeros((1, self.chunk), dtype=self.torch.long), params)
            self.torch.cuda.synchronize()
        return {"warmup": f"failed: {'; '.join(map(str, failed))}"} if failed else {}

    # ------------------------------------------------------------ jobs
    def new_job(self, job: Job, most: int, stops: Sequence[int | str], grammar: Grammar | None) -> Any:
        filters = [_filter_class()(self.tokenizer, grammar)] if grammar is not None else None
        return self.library.Job(
            input_ids=self.torch.tensor([list(job.prompt)], dtype=self.torch.long),
            max_new_tokens=most,
            sampler=self.sampler(job),
            seed=job.seed,
            stop_conditions=list(stops),
            filters=filters,
            token_healing=False,
            identifier=job.id,
        )

    def sampler(self, job: Job) -> Any:
        """Every sampler by name: the library's own defaults change what a model says."""
        greedy = job.temperature <= 0 or job.top_p <= 0
        return self.library.ComboSampler(
            rep_p=job.repetition_penalty or 1.0,
            freq_p=job.frequency_penalty,
            pres_p=job.presence_penalty,
            rep_sustain_range=_WHOLE_RANGE,
            rep_decay_range=0,
            dry_multiplier=0.0,
            temperature=0.0 if greedy else job.temperature,
            min_p=job.min_p,
            top_k=job.top_k,
            top_p=1.0 if greedy else job.top_p,
            temp_last=False,
            adaptive_target=1.0,
        )


@cache
def _filter_class() -> Any:
    """A grammar as ExLlamaV3 asks for it; made late, since its base class lies in the library."""
    library, torch = import_module("exllamav3"), import_module("torch")
    base: Any = library.Filter

    class GrammarFilter(base):  # type: ignore[misc]  # the library has no types
        def __init__(self, tokenizer: Any, grammar: Grammar) -> None:
            super().__init__(tokenizer, trigger_token=None, prefix_str=None, eos_after_completed=True)
            self._grammar = grammar

        def reset(self) -> None:
            self._grammar.restart()

        def accept_token(self, token: int) -> None:
            self._grammar.accept(int(token))

        def get_next_logit_mask(self) -> Any:
            return torch.from_numpy(self._grammar.mask()).unsqueeze(0)

        def is_completed(self) -> bool:
            return self._grammar.is_over

        def use_background_worker(self) -> bool:
            return False

    return GrammarFilter


def _version() -> str:
    return str(import_module("exllamav3.version").__version__)
