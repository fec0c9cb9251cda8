"""Holds an answer to a JSON schema or a regular expression, by llguidance: one filter for both libraries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.serving.driver import Job, Refused
from core.serving.drivers.hf_tokenizer import HfTokenizer

PACKAGE: Final = "llguidance"
_LONGEST: Final = 100_000
_JSON: Final = {"whitespace_pattern": r"[ \n]{0,8}"}
"""Else a model that has lost its way writes blanks until its tokens are used up."""


class Grammar:
    """One answer's way through its grammar. What goes wrong is kept in `error`, and the answer ends."""

    def __init__(self, matcher: Any, words: int, ends: Sequence[int]) -> None:
        self._matcher = matcher
        self._bits: NDArray[np.int32] = np.zeros((words + 31) // 32, dtype=np.int32)
        self._end: NDArray[np.int32] = np.zeros_like(self._bits)
        for token in ends:
            self._end[token >> 5] |= np.int32(np.uint32(1 << (token & 31)).astype(np.int32))
        self.error = ""

    @property
    def is_over(self) -> bool:
        """Only the end of the answer may come now."""
        return bool(self.error or self._matcher.is_stopped())

    def mask(self) -> NDArray[np.int32]:
        """A bit for every token, set where it may come next; good until the next call."""
        if self.is_over:
            return self._end
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            self.error = str(self._matcher.get_error())
            return self._end
        return self._bits

    def accept(self, token: int) -> None:
        if not self.is_over and not self._matcher.consume_token(token):
            self.error = str(self._matcher.get_error()) or "a token came that the grammar does not allow"

    def restart(self) -> None:
        if not self.error:
            self._matcher.reset()


class Grammars:
    """Makes them for one model; its words are read once, when the first is wanted."""

    def __init__(self, tokenizer: HfTokenizer, vocabulary: int, ends: Sequence[int]) -> None:
        """`vocabulary`: token ids that the model knows; `ends`: those that end an answer."""
        self._tokenizer = tokenizer
        self._size = max(vocabulary, tokenizer.size)
        self._ends = [token for token in ends if token < self._size]
        self._words: Any = None

    def for_job(self, job: Job) -> Grammar | None:
        """None where the answer is free. Raises Refused where the grammar cannot be followed."""
        if job.json_schema is None and not job.regex:
            return None
        try:
            library: Any = import_module(PACKAGE)
        except ModuleNotFoundError as error:
            raise Refused(
                "Answers by a schema need the package llguidance: pip install llguidance.", code="unsupported"
            ) from error
        grammar = self._grammar(library, job)
        if self._words is None:
            self._words = library.LLTokenizer(
                self._tokenizer.as_json(), n_vocab=self._size, eos_token=self._ends or None
            )
        matcher = library.LLMatcher(self._words, grammar, log_level=0)
        if matcher.is_error():
            reason = str(matcher.get_error()).splitlines()[0][:300]
            raise Refused(f"The grammar cannot be followed: {reason}", code="bad_request")
        return Grammar(matcher, self._size, self._ends)

    def _grammar(self, library: Any, job: Job) -> str:
        if job.json_schema is None:
            source = job.regex
        else:
            try:
                source = json.dumps(job.json_schema)
            except (TypeError, ValueError, RecursionError) as error:
                raise Refused(f"The schema is no JSON: {error}", code="bad_request") from error
        if len(source) > _LONGEST:
            raise Refused(f"The grammar is longer than {_LONGEST} characters.", code="bad_request")
        try:
            if job.json_schema is None:
                return str(library.LLMatcher.grammar_from_regex(source))
            return str(library.LLMatcher.grammar_from_json_schema(source, defaults=_JSON))
        except ValueError as error:
            raise Refused(f"The grammar cannot be followed: {error}", code="bad_request") from error
