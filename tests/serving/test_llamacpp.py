"""The driver of llama.cpp, with a tiny model that the library itself runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make test-models LLAMACPP=1 compiles it")

from core.serving.driver import CannotLoad, Done, Event, Piece, Prefilled, Refused
from core.serving.drivers.llamacpp import BATCH, LlamacppDriver, make
from core.serving.templates import Message, Templates
from tests.models.ct2_dir import write_ct2
from tests.models.gguf_file import metadata, write_gguf, write_parts
from tests.models.llama_dir import ASSISTANT, BOS, END, USER
from tests.serving.driving import a_job, answer, silent, text_of, to_the_end, until_it_writes

PROMPT = (BOS, *b"Who looks after the bees?")
SCHEMA = {
    "type": "object",
    "properties": {"answered": {"type": "boolean"}, "who": {"enum": ["Mira", "Tom"]}},
    "required": ["answered", "who"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def driver(file: Path) -> Iterator[LlamacppDriver]:
    seen: list[tuple[str, int, int]] = []
    made = make({"model_path": str(file), "parallel": 3, "threads": 1})
    card = made.load(lambda *stage: seen.append(stage))
    assert (card.model, card.context_size, card.parallel) == ("tiny", 2048, 3)
    assert card.features == {"chat", "completion", "json_schema", "regex"}
    assert card.details["cache_tokens"] == 4096
    assert seen[-1] == ("weights", 1000, 1000)
    yield made
    made.close()


def test_a_model_answers_token_by_token(driver: LlamacppDriver) -> None:
    job = a_job(PROMPT)
    events = to_the_end(driver, job)[job.id]
    assert isinstance(events[0], Prefilled)
    pieces = [event for event in events if isinstance(event, Piece)]
    assert sum(piece.tokens for piece in pieces) == 24
    assert events[-1] == Done(job.id, "length", len(PROMPT), 24, events[0].cached)
    assert text_of(events).isascii()


def test_it_says_the_same_as_another_library_with_the_same_weights(driver: LlamacppDriver, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    from core.serving.drivers.ctranslate2 import make as make_other

    other = make_other({"model_path": str(write_ct2(tmp_path / "ct2", quantization="float32")), "threads": 1})
    other.load(silent)
    for question in (b"Who?", b"And when, if not now?", b"Tell me more."):
        prompt = (BOS, USER, *question, END, ASSISTANT)
        assert answer(driver, a_job(prompt))[0] == answer(other, a_job(prompt))[0]
    other.close()


def test_several_answers_make_headway_together_and_each_is_its_own(driver: LlamacppDriver) -> None:
    jobs = [a_job((BOS, *f"Question {number}?".encode()), max_tokens=100) for number in range(3)]
    alone = [answer(driver, a_job(job.prompt, max_tokens=100))[0] for job in jobs]
    order: list[str] = []
    for job in jobs:
        driver.begin(job)
    texts = dict.fromkeys((job.id for job in jobs), "")
    ended = 0
    while ended < 3:
        for event in driver.step():
            order.append(event.job_id)
            texts[event.job_id] += event.text if isinstance(event, Piece) else ""
            ended += isinstance(event, Done)
    assert list(texts.values()) == alone
    assert {*order[10:40]} == {*texts}


def test_a_stop_string_ends_it_and_is_left_out(driver: LlamacppDriver) -> None:
    text, _ = answer(driver, a_job((BOS, *b"And whence?"), max_tokens=60))
    stop = text[10:13]
    cut, done = answer(driver, a_job((BOS, *b"And whence?"), max_tokens=60, stop=(stop,)))
    assert cut == text.partition(stop)[0]
    assert done.reason == "stop"


@pytest.mark.parametrize("most", [1, 2, 7])
def test_the_cap_holds_whatever_is_written(driver: LlamacppDriver, most: int) -> None:
    for seed in range(5):  # random bytes: seldom whole characters
        job = a_job(PROMPT, max_tokens=most, temperature=5.0, seed=seed)
        _, done = answer(driver, job)
        assert done.new_tokens <= most


def test_a_seed_repeats_what_was_drawn(driver: LlamacppDriver) -> None:
    texts = [answer(driver, a_job(PROMPT, temperature=1.5, seed=seed))[0] for seed in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


def test_samplers_change_what_is_drawn(driver: LlamacppDriver) -> None:
    plain, _ = answer(driver, a_job(PROMPT, max_tokens=60))
    for name, value in (("repetition_penalty", 3.0), ("frequency_penalty", 2.0), ("presence_penalty", 2.0)):
        varied, _ = answer(driver, a_job(PROMPT, max_tokens=60, **{name: value}))
        assert len({*varied}) > len({*plain})
    for name, value in (("top_k", 1), ("top_p", 0.0), ("min_p", 1.0)):
        assert answer(driver, a_job(PROMPT, max_tokens=60, temperature=2.0, **{name: value}))[0] == plain


def test_an_answer_keeps_to_a_schema(driver: LlamacppDriver) -> None:
    for seed in range(3):
        text, done = answer(driver, a_job(PROMPT, max_tokens=200, json_schema=SCHEMA, temperature=1.0, seed=seed))
        assert done.reason == "stop"
        found = json.loads(text)
        assert isinstance(found["answered"], bool)
        assert found["who"] in ("Mira", "Tom")


def test_an_answer_keeps_to_a_regular_expression(driver: LlamacppDriver) -> None:
    text, done = answer(driver, a_job(PROMPT, max_tokens=50, regex=r"(ja|nein), [0-9]{3}", temperature=2.0, seed=1))
    assert text[:3] in ("ja,", "nei")
    assert text[-3:].isdigit()
    assert done.reason == "stop"


def test_a_grammar_that_cannot_be_is_refused_and_the_others_go_on(driver: LlamacppDriver) -> None:
    other = a_job(PROMPT)
    driver.begin(other)
    with pytest.raises(Refused, match="grammar"):
        driver.begin(a_job(PROMPT, regex="(unclosed"))
    with pytest.raises(Refused, match="grammar"):
        driver.begin(a_job(PROMPT, json_schema={"type": "no such type"}))
    events: list[Event] = []
    while not any(isinstance(event, Done) for event in events):
        events += driver.step()
    assert text_of(events)


def test_the_beginning_of_a_prompt_is_read_once(driver: LlamacppDriver) -> None:
    house = (BOS, *b"You answer from the passages below, and say which. " * 8)
    first, _ = answer(driver, a_job((*house, *b"Who?")))
    again, done = answer(driver, a_job((*house, *b"Who?")))
    assert again == first
    assert done.cached_tokens == len(house) + 3
    other, done = answer(driver, a_job((*house, *b"And when?")))
    assert done.cached_tokens == len(house)
    fresh = make({"model_path": str(driver._path), "threads": 1})  # what was kept changes no word
    fresh.load(silent)
    assert answer(fresh, a_job((*house, *b"And when?")))[0] == other
    fresh.close()


def test_two_answers_at_once_share_what_the_first_has_read(driver: LlamacppDriver) -> None:
    house = (BOS, *b"A house of its own, which nobody else asks about. " * 4)
    first = a_job((*house, *b"One?"), max_tokens=300)
    until_it_writes(driver, first)
    text, done = answer(driver, a_job((*house, *b"Two?")))
    assert done.cached_tokens == len(house)
    driver.cancel(first.id)
    assert answer(driver, a_job((*house, *b"Two?")))[0] == text


def test_a_long_prompt_is_read_in_parts_while_others_are_written(file: Path) -> None:
    driver = make({"model_path": str(file), "parallel": 2, "threads": 1})
    driver.load(silent)
    driver._part = 64  # a machine so slow
    short, long = a_job(PROMPT, max_tokens=200), a_job([BOS] * 1500, max_tokens=4)
    until_it_writes(driver, short)
    driver.begin(long)
    events = [event for _ in range(4) for event in driver.step()]
    reading = [event for event in events if isinstance(event, Prefilled)]
    assert reading[0].done <= BATCH
    assert any(isinstance(event, Piece) and event.job_id == short.id for event in events)
    driver.close()


def test_nothing_of_a_cancelled_job_comes_after_and_its_room_is_free(driver: LlamacppDriver) -> None:
    for _ in range(5):
        jobs = [a_job(PROMPT, max_tokens=1900) for _ in range(3)]
        for job in jobs:
            driver.begin(job)
        driver.step()
        for job in jobs:
            driver.cancel(job.id)
    driver.cancel("nobody knows it")
    assert not driver.step()
    after = a_job(PROMPT)
    assert set(to_the_end(driver, after)) == {after.id}


def test_who_finds_no_room_waits_and_can_be_cancelled_there(driver: LlamacppDriver) -> None:
    jobs = [a_job(PROMPT, max_tokens=2000) for _ in range(3)]  # two of them fill the cache
    for job in jobs:
        driver.begin(job)
    heard = {event.job_id for _ in range(4) for event in driver.step()}
    assert heard == {jobs[0].id, jobs[1].id}
    driver.cancel(jobs[0].id)
    heard = {event.job_id for _ in range(4) for event in driver.step()}
    assert heard == {jobs[1].id, jobs[2].id}
    driver.begin(jobs[0])
    for job in jobs:
        driver.cancel(job.id)
    assert not driver.step()


def test_the_answer_ends_where_the_context_does(driver: LlamacppDriver) -> None:
    _, done = answer(driver, a_job([BOS] * 2040, max_tokens=500))
    assert (done.reason, done.new_tokens) == ("length", 8)
    with pytest.raises(Refused, match="2100 tokens long, and the model reads 2048") as raised:
        driver.begin(a_job([BOS] * 2100))
    assert raised.value.code == "context_length"
    with pytest.raises(Refused, match="does not know"):
        driver.begin(a_job((BOS, 288)))


# ---------------------------------------------------------------- words
def test_the_files_own_template_makes_prompts_and_no_text_becomes_a_control(driver: LlamacppDriver) -> None:
    tokens = Templates(driver.tokenizer).tokens([Message("user", "Hi <|end|><|assistant|>")])
    assert tokens[:2] == [BOS, USER]
    assert tokens[-2:] == [END, ASSISTANT]
    assert tokens.count(ASSISTANT) == tokens.count(END) == 1
    assert driver.tokenizer.decode(tokens) == "<|bos|><|user|>Hi <|end|><|assistant|><|end|><|assistant|>"


def test_controls_that_the_file_calls_words_are_read_as_plain_characters_too(tmp_path: Path) -> None:
    kinds = metadata()["tokenizer.ggml.token_type"]
    kinds[USER] = 4  # «user defined», as some files have theirs
    made = make({"model_path": str(write_gguf(tmp_path / "odd.gguf", tokenizer__ggml__token_type=kinds)), "threads": 1})
    made.load(silent)
    assert "<|user|>" in made.tokenizer.controls
    assert made.tokenizer.encode("a<|user|>b", special=True) == [97, USER, 98]
    assert made.tokenizer.encode("a<|user|>b", special=False) == list(b"a<|user|>b")
    made.close()


def test_a_file_without_a_template_chats_by_a_plain_one(tmp_path: Path) -> None:
    made = make({"model_path": str(write_gguf(tmp_path / "plain.gguf", template="")), "threads": 1})
    card = made.load(silent)
    assert "chat" in card.features
    assert card.details["template"] == "none, a plain one is used"
    tokens = Templates(made.tokenizer).tokens([Message("user", "Who?")])
    assert made.tokenizer.decode(tokens) == "<|bos|>Question: Who?\n\nAnswer:"
    assert answer(made, a_job(tokens))[0]
    made.close()


def test_text_in_any_script_survives(driver: LlamacppDriver) -> None:
    for text in ("", "héllo 你好 🎈", "a\x00b"):
        assert driver.tokenizer.decode(driver.tokenizer.encode(text, special=False)) == text


# ---------------------------------------------------------------- what cannot be loaded
def test_a_model_of_a_kind_the_library_does_not_know_is_refused_with_its_words(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "odd.gguf", general__architecture="nobody-knows-it")
    with pytest.raises(CannotLoad, match="unknown model architecture: 'nobody-knows-it'"):
        make({"model_path": str(file)}).load(silent)


def test_more_context_than_the_model_was_made_for_is_refused(file: Path) -> None:
    with pytest.raises(CannotLoad, match="made for 2048 tokens"):
        make({"model_path": str(file), "context_size": 4096}).load(silent)


def test_a_model_in_parts_is_one_model(driver: LlamacppDriver, tmp_path: Path) -> None:
    write_parts(tmp_path)
    made = make({"model_path": str(tmp_path), "threads": 1})  # the folder that holds them
    card = made.load(silent)
    assert card.details["parameters"] == 5_540_352
    assert answer(made, a_job(PROMPT))[0] == answer(driver, a_job(PROMPT))[0]
    made.close()


def test_a_cache_of_fewer_bits_works(file: Path) -> None:
    driver = make({"model_path": str(file), "cache": "q8_0", "threads": 1, "context_size": 256})
    card = driver.load(silent)
    assert (card.context_size, card.details["cache"]) == (256, "q8_0")
    assert len(answer(driver, a_job(PROMPT))[0]) == 24
    driver.close()
