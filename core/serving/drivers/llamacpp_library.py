"""What llama.cpp makes for each answer, and what it says of itself."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from functools import cache
from typing import Any, Final

from core.serving.driver import Job

logger = logging.getLogger(__name__)

_WARNING, _ERROR = 3, 4
_REMEMBERED: Final = 12
_WINDOW: Final = 1 << 20
"""Words of an answer that penalties look back on: all."""


def listened_to(library: Any) -> deque[str]:
    """The last that the library said; its log belongs to the whole process, and is forwarded to ours."""
    return _listening(library)[0]


@cache
def _listening(library: Any) -> tuple[deque[str], Any]:
    """The function that is called is kept as long as the library may call it."""
    said: deque[str] = deque(maxlen=_REMEMBERED)

    def written(level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (_WARNING, _ERROR) and line:
            said.append(line)
            logger.log(logging.WARNING if level == _ERROR else logging.INFO, "llama.cpp: %s", line[:500])

    called = library.llama_log_callback(written)
    library.llama_log_set(called, None)
    return said, called


def made_sampler(library: Any, job: Job, *, words: int) -> Any:
    """The chain that draws the job's words, to be freed; `words`: size of the vocabulary."""
    chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
    for part in [*_penalties(library, job, words), *(_drawing(library, job))]:
        library.llama_sampler_chain_add(chain, part)
    return chain


def _penalties(library: Any, job: Job, words: int) -> list[Any]:
    """For what the answer itself has said; a prompt's passages are to be quoted."""
    if job.repetition_penalty == 1 and not job.frequency_penalty and not job.presence_penalty:
        return []
    last = min(job.max_tokens, _WINDOW)
    repeat, frequency, presence = job.repetition_penalty, job.frequency_penalty, job.presence_penalty
    return [library.llama_sampler_init_penalties(words, last, repeat, frequency, presence)]


def _drawing(library: Any, job: Job) -> list[Any]:
    if job.temperature <= 0:
        return [library.llama_sampler_init_greedy()]
    parts = []
    if job.top_k > 0:
        parts.append(library.llama_sampler_init_top_k(job.top_k))
    if job.top_p < 1:
        parts.append(library.llama_sampler_init_top_p(max(job.top_p, 0.0), 1))
    if job.min_p > 0:
        parts.append(library.llama_sampler_init_min_p(job.min_p, 1))
    seed = secrets.randbits(31) if job.seed is None else job.seed & 0x7FFFFFFF
    return [*parts, library.llama_sampler_init_temp(job.temperature), library.llama_sampler_init_dist(seed)]
