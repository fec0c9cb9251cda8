"""What both ExLlamas promise, whatever their generator is: said to drivers that have loaded the tiny Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from core.serving.driver import Done, Prefilled, Refused
from core.serving.drivers.exllama import ExLlamaDriver
from tests.models.llama_dir import ASSISTANT, BOS, END, USER
from tests.models.llama_reference import Reference
from tests.serving.driving import a_job, answer, text_of, to_the_end, until_it_writes

PROMPT = (BOS, USER, *b"Who looks after the bees?", END, ASSISTANT)
SMALL: Final[dict[str, Any]] = {
    "hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "strength": 0.1, "seed": 27,
}  # fmt: skip
"""With these numbers attention decides, and no two tokens are nearly as likely."""


class ExLlamaPromises:
    """`driver` writes one answer or several at a time, `side_by_side` eight; both have a context of 1024 tokens."""

    @pytest.mark.parametrize("length", [3, 300])
    def test_it_says_what_the_model_says(self, driver: ExLlamaDriver, folder: Path, length: int) -> None:
        """300 tokens are read in two steps.

        Torch's attention, which ExLlamaV2 prefers where there is no flash-attn, leaves out the causal mask: with it
        this fails.
        """
        prompt = [BOS, *(65 + (number * 7) % 26 for number in range(length))]
        text, done = answer(driver, a_job(prompt, max_tokens=12))
        assert text.encode() == bytes(Reference(folder).greedy(prompt, 12))
        assert done == Done(done.job_id, "length", len(prompt), 12, done.cached_tokens)

    def test_an_answer_ends_by_stops_and_by_its_length(self, driver: ExLlamaDriver) -> None:
        text, _ = answer(driver, a_job(PROMPT, max_tokens=12))
        cut, done = answer(driver, a_job(PROMPT, max_tokens=12, stop=(text[4:6], "never")))
        assert (cut, done.reason) == (text[: text.index(text[4:6])], "stop")
        for count in (1, 2, 5):
            assert answer(driver, a_job(PROMPT, max_tokens=count))[0] == text[:count]

    def test_a_schema_is_kept_to_and_the_answer_ends_with_it(self, driver: ExLlamaDriver) -> None:
        schema = {
            "type": "object",
            "properties": {"yes": {"type": "boolean"}, "colour": {"enum": ["red", "blue"]}},
            "required": ["yes", "colour"],
            "additionalProperties": False,
        }
        text, done = answer(driver, a_job(PROMPT, max_tokens=200, json_schema=schema))
        assert json.loads(text)["colour"] in ("red", "blue")
        assert done.reason == "stop"
        text, done = answer(driver, a_job(PROMPT, max_tokens=50, regex="[0-9]{4}-[0-9]{2}"))
        assert (len(text), text[4], done.reason) == (7, "-", "stop")

    def test_samplers_do_what_they_are_asked_for_and_nothing_else(self, driver: ExLlamaDriver) -> None:
        """The stand-in for the kernel fails where a sampler is on that nobody set."""
        warm = {"temperature": 5.0, "max_tokens": 16}
        same = {answer(driver, a_job(PROMPT, seed=7, **warm))[0] for _ in range(2)}
        assert len(same) == 1
        assert len({answer(driver, a_job(PROMPT, seed=seed, **warm))[0] for seed in range(4)}) > 1
        greedy, _ = answer(driver, a_job(PROMPT, max_tokens=16))
        assert answer(driver, a_job(PROMPT, top_k=1, **warm))[0] == greedy
        assert answer(driver, a_job(PROMPT, top_p=1e-6, **warm))[0] == greedy
        assert answer(driver, a_job(PROMPT, min_p=1.0, **warm))[0] == greedy
        assert answer(driver, a_job(PROMPT, max_tokens=16, presence_penalty=100.0))[0] != greedy
        twice, _ = answer(driver, a_job(PROMPT, max_tokens=16, repetition_penalty=1.3))
        assert twice != greedy

    def test_eight_answers_at_a_time_say_what_each_says_alone(self, side_by_side: ExLlamaDriver) -> None:
        prompts = [(BOS, USER, *f"question {number}? ".encode() * (1 + number * 4), END) for number in range(8)]
        alone = [answer(side_by_side, a_job(prompt, max_tokens=20))[0] for prompt in prompts]
        jobs = [a_job(prompt, max_tokens=20) for prompt in prompts]
        together = to_the_end(side_by_side, *jobs)
        assert [text_of(together[job.id]) for job in jobs] == alone

    def test_a_prompt_that_begins_like_the_last_is_not_read_again(self, side_by_side: ExLlamaDriver) -> None:
        start = (BOS, *(65 + number % 23 for number in range(600)))
        first, _ = answer(side_by_side, a_job((*start, 70), max_tokens=8))
        job = a_job((*start, 71), max_tokens=8)
        events = to_the_end(side_by_side, job)[job.id]
        done = events[-1]
        assert isinstance(done, Done)
        assert done.cached_tokens >= 512
        read = [one for one in events if isinstance(one, Prefilled)]
        assert (read[-1].done, read[-1].total) == (601, 601)
        assert answer(side_by_side, a_job((*start, 70), max_tokens=8))[0] == first

    def test_a_cancelled_answer_leaves_the_others_as_they_are(self, driver: ExLlamaDriver) -> None:
        wanted, _ = answer(driver, a_job(PROMPT, max_tokens=20))
        for _ in range(20):
            job = a_job(PROMPT, max_tokens=500)
            until_it_writes(driver, job)
            driver.cancel(job.id)
        assert driver.step() == ()
        assert answer(driver, a_job(PROMPT, max_tokens=20))[0] == wanted

    def test_what_does_not_fit_is_refused_and_the_others_go_on(self, driver: ExLlamaDriver) -> None:
        with pytest.raises(Refused) as caught:
            driver.begin(a_job([65] * 1024))
        assert caught.value.code == "context_length"
        _, done = answer(driver, a_job([65] * 1020, max_tokens=100))
        assert (done.reason, done.new_tokens) == ("length", 4)
        for bad in ({"stop": ("\ud800",)}, {"regex": "(("}, {"json_schema": {"type": "nothing"}}):
            with pytest.raises(Refused) as caught:
                driver.begin(a_job(PROMPT, **bad))
            assert caught.value.code == "bad_request"
        assert driver.step() == ()
