"""ExLlamaV2: EXL2, GPTQ with 4 bits and FP16, on NVIDIA cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np

from core.serving.driver import CannotLoad, Job, Report, Scalar
from core.serving.drivers.exllama import ExLlamaDriver, Loaded, Plan
from core.serving.drivers.exllama_build import provide
from core.serving.drivers.exllama_cards import cards_of, gigabytes, used_bytes
from core.serving.drivers.exllama_folder import Library, rounded
from core.serving.drivers.exllama_grammar import Grammar
from core.serving.drivers.exllama_options import Options

SERIAL: Final = "serial: one answer at a time; install flash-attn (2.5.7 or newer) for answers side by side"
SERIAL_CARD: Final = "serial: one answer at a time, since this card has no flash-attn (it needs compute capability 8.0)"
SERIAL_MODEL: Final = "serial: one answer at a time, since flash-attn does not know this model's attention"
SERIAL_WANTED: Final = "serial: one answer at a time, as it is set"
_OUTPUT: Final = 16
"""Positions whose words are told apart in one step: a token and what was guessed behind it."""
_QUEUE: Final = 8
_CAPABILITY: Final = (8, 0)
_PLAIN_CHUNK: Final = 512
"""Tokens of a prompt in a step where attention is plain matrices: they grow with it."""


def make(values: Mapping[str, Any]) -> ExLlamaDriver:
    """The driver for these values. Raises CannotLoad."""
    return ExLlamaDriver(values, ExLlamaV2())


class ExLlamaV2:
    name: Library = "exllamav2"

    def load(self, plan: Plan, report: Report) -> Loaded:
        torch = import_module("torch")
        cards = cards_of(torch, self.name)
        provide(self.name, plan.options.build_dir, cards.architectures, report)
        library, generator = import_module("exllamav2"), import_module("exllamav2.generator")
        return _Loading(torch, library, generator, plan, report).run(cards.told)


class _Loading:
    """One model, from its folder to its generator."""

    def __init__(self, torch: Any, library: Any, generator: Any, plan: Plan, report: Report) -> None:
        self.torch, self.library, self.generating = torch, library, generator
        self.plan, self.options, self.report = plan, plan.options, report
        self.drafted = self.options.drafted

    def run(self, told: str) -> Loaded:
        plan, options = self.plan, self.options
        config = self.config(str(plan.path))
        mode = self.mode(config)
        paged = mode == "paged"
        draft = draft_cache = None
        if plan.draft_path is not None:
            draft, draft_cache = self.model(self.config(str(plan.draft_path)), "draft")
        model, cache = self.model(config, "weights")
        self.rehearse(model, cache)
        loras = self.loras(model)
        self.report("start", 0, 1)
        tokenizer = self.library.ExLlamaV2Tokenizer(config)
        parallel = options.parallel if paged else 1
        generator = self.generating.ExLlamaV2DynamicGenerator(
            model=model,
            cache=cache,
            draft_model=draft,
            draft_cache=draft_cache,
            tokenizer=tokenizer,
            max_batch_size=parallel,
            max_chunk_size=config.max_input_len,
            max_q_size=_QUEUE,
            paged=paged,
            num_draft_tokens=options.draft_tokens,
            use_ngram_draft=options.ngram_draft,
            filter_background_eval=False,
        )
        if loras:
            generator.set_loras(loras)
        self.report("start", 1, 1)
        details: dict[str, Scalar] = {
            "device": told,
            "memory_bytes": used_bytes(self.torch),
            "library": f"exllamav2 {self.library.__version__}, torch {self.torch.__version__}",
        }
        return Loaded(generator, self.new_job, lambda: _unload(model, draft), parallel, mode, details)

    # ------------------------------------------------------------ its parts
    def config(self, path: str) -> Any:
        options, chunk = self.options, min(self.options.chunk_size, rounded(self.plan.context_size))
        config = self.library.ExLlamaV2Config()
        config.model_dir = path
        config.prepare()
        config.arch_compat_overrides(quiet=True)
        if not self.has_fast_attention(config):
            # Of what is left, the library prefers torch's attention, and leaves the causal mask out of it: each token
            # of a prompt would read those behind it.
            config.no_sdpa = True
            chunk = min(chunk, _PLAIN_CHUNK)
        config.max_seq_len = rounded(self.plan.context_size + (self.drafted + 2 if self.drafted else 0))
        config.max_input_len = chunk
        config.max_attention_size = chunk**2
        config.max_output_len = _OUTPUT
        if options.rope_scale:
            config.scale_pos_emb = options.rope_scale
        if options.rope_alpha:
            config.scale_alpha_value = options.rope_alpha
        return config

    def has_fast_attention(self, config: Any) -> bool:
        attention = import_module("exllamav2.attn")
        flash = attention.has_flash_attn and not config.no_flash_attn
        return bool(flash or (attention.has_xformers and not config.no_xformers))

    def mode(self, config: Any) -> str:
        """`paged`, or why not. Raises CannotLoad where it was wanted and cannot be."""
        if self.options.paged == "off":
            return SERIAL_WANTED
        attention = import_module("exllamav2.attn")
        why = ""
        if not attention.has_flash_attn_with_paged:
            why = SERIAL
        elif self.torch.cuda.get_device_capability(0) < _CAPABILITY:
            why = SERIAL_CARD
        elif config.no_flash_attn:
            why = SERIAL_MODEL
        if why and self.options.paged == "on":
            raise CannotLoad(f"paged is on, but only this can be: {why}.")
        return why or "paged"

    def model(self, config: Any, stage: str) -> tuple[Any, Any]:
        """The model with its cache, loaded on the cards."""
        kinds = {
            "fp16": "ExLlamaV2Cache",
            "q8": "ExLlamaV2Cache_Q8",
            "q6": "ExLlamaV2Cache_Q6",
            "q4": "ExLlamaV2Cache_Q4",
        }
        kind = getattr(self.library, kinds[self.options.cache])
        model = self.library.ExLlamaV2(config)

        def progress(done: int, total: int) -> None:
            self.report(stage, done, total)

        if self.options.gpu_split:
            model.load(gpu_split=list(self.options.gpu_split), callback=progress)
            return model, kind(model, max_seq_len=self.plan.cache_tokens)
        cache = kind(model, max_seq_len=self.plan.cache_tokens, lazy=True)
        count = self.torch.cuda.device_count()
        model.load_autosplit(cache, reserve_vram=_reserved(self.options, count), callback=progress)
        return model, cache

    def rehearse(self, model: Any, cache: Any) -> None:
        """The longest step there can be, so that a lack of memory shows now and not with somebody's question."""
        self.report("rehearse", 0, 1)
        chunk = model.config.max_input_len
        ids = self.torch.zeros((1, chunk), dtype=self.torch.long)
        with self.torch.inference_mode():
            cache.current_seq_len = max(0, min(model.config.max_seq_len, self.plan.cache_tokens) - chunk)
            model.forward(ids, cache=cache, preprocess_only=True)
            cache.current_seq_len = 0
            model.forward(ids[:, :1], cache=cache)
            cache.current_seq_len = 0
        self.torch.cuda.synchronize()
        self.report("rehearse", 1, 1)

    def loras(self, model: Any) -> list[Any]:
        files = self.options.lora_files
        if files is None:
            return []
        # not `from_directory`: it takes a pickle before safetensors
        return [self.library.ExLlamaV2Lora(model, str(files[0]), str(files[1]), self.options.lora_scale)]

    # ------------------------------------------------------------ jobs
    def new_job(self, job: Job, most: int, stops: Sequence[int | str], grammar: Grammar | None) -> Any:
        return self.generating.ExLlamaV2DynamicJob(
            input_ids=self.torch.tensor([list(job.prompt)], dtype=self.torch.long),
            max_new_tokens=most + self.drafted,  # it ends by as many before
            gen_settings=self.sampling(job),
            seed=job.seed,
            stop_conditions=list(stops),
            filters=[MaskingFilter(grammar)] if grammar is not None else None,
            token_healing=False,
            identifier=job.id,
        )

    def sampling(self, job: Job) -> Any:
        """Every sampler by name: the library's own defaults change what a model says."""
        greedy = job.temperature <= 0 or job.top_p <= 0
        return self.generating.ExLlamaV2Sampler.Settings(
            temperature=1.0 if greedy else job.temperature,
            top_k=1 if greedy else job.top_k,
            top_p=0.0 if greedy else job.top_p,
            min_p=0.0 if greedy else job.min_p,
            token_repetition_penalty=job.repetition_penalty or 1.0,
            token_repetition_range=-1,
            token_repetition_decay=0,
            token_frequency_penalty=job.frequency_penalty,
            token_presence_penalty=job.presence_penalty,
            smoothing_factor=0.0,
            min_temp=0.0,
            max_temp=0.0,
            temp_exponent=1.0,
            top_a=0.0,
            tfs=0.0,
            typical=0.0,
            skew=0.0,
            temperature_last=False,
            mirostat=False,
            dry_multiplier=0.0,
            xtc_probability=0.0,
        )


class MaskingFilter:
    """A grammar as ExLlamaV2's sampler asks for it; its own base class would bring in nothing but a thread."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar

    def begin(self, _prefix: str) -> None:
        self._grammar.restart()

    def feed(self, token: Any) -> None:
        self._grammar.accept(int(token.item()))

    def background_drop(self) -> None:
        """Nothing is computed in the background."""

    def use_background_worker(self) -> bool:
        return False

    def can_mask_logits(self) -> bool:
        return True

    def get_next(self, mask: bool = False) -> bool:
        return mask

    def mask_logits(self, logits: Any) -> Any:
        """The logits, in place, without the tokens that may not come next."""
        numbers = logits.numpy()
        allowed = np.unpackbits(self._grammar.mask().view(np.uint8), bitorder="little").astype(bool)
        size = min(len(allowed), len(numbers))
        numbers[:size][~allowed[:size]] = -np.inf
        numbers[size:] = -np.inf
        return logits


def _reserved(options: Options, cards: int) -> list[int]:
    """Bytes that stay free on each card; where nothing is said, what the library itself leaves."""
    usual = [192 * 1024**2, *[64 * 1024**2] * max(0, cards - 1)]
    return [gigabytes(said) for said in options.gpu_reserve[:cards]] + usual[len(options.gpu_reserve[:cards]) :]


def _unload(*models: Any) -> None:
    for model in models:
        if model is not None:
            model.unload()
