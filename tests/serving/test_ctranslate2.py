"""The driver of CTranslate2, with a tiny model that the library itself runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ctranslate2", reason="CTranslate2 is not installed: pip install 'kvasir[ctranslate2]'")

from core.serving.driver import CannotLoad, Done, Piece, Prefilled, Refused
from core.serving.drivers.cores import physical_cores, threads
from core.serving.drivers.ctranslate2 import Ctranslate2Driver, make
from core.serving.drivers.ctranslate2_prefix import Beginnings
from tests.models.ct2_dir import write_ct2
from tests.models.llama_dir import BOS
from tests.serving.driving import a_job, answer, silent, text_of, to_the_end, until_it_writes

PROMPT = (BOS, *b"Who looks after the bees?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct2(tmp_path_factory.mktemp("ct2") / "tiny")


@pytest.fixture(scope="module")
def driver(folder: Path) -> Iterator[Ctranslate2Driver]:
    made = make({"model_path": str(folder), "parallel": 2, "threads": 2})
    card = made.load(silent)
    assert (card.model, card.context_size, card.parallel) == ("tiny", 2048, 2)
    assert card.features == {"chat", "completion"}
    assert card.details["compute_type"] == "int8_float32"
    assert int(card.details["memory_bytes"]) > 5_000_000
    yield made
    made.close()


def test_a_model_answers_token_by_token(driver: Ctranslate2Driver) -> None:
    job = a_job(PROMPT)
    events = to_the_end(driver, job)[job.id]
    assert isinstance(events[0], Prefilled)
    assert events[0].total == len(PROMPT)
    pieces = [event for event in events if isinstance(event, Piece)]
    assert len(pieces) > 10
    assert sum(piece.tokens for piece in pieces) == 24
    assert events[-1] == Done(job.id, "length", len(PROMPT), 24)
    assert text_of(events).isascii()


def test_the_likeliest_text_is_ever_the_same_and_a_stop_string_ends_it(driver: Ctranslate2Driver) -> None:
    text, _ = answer(driver, a_job(PROMPT))
    assert answer(driver, a_job(PROMPT))[0] == text
    stop = text[8:11]
    cut, done = answer(driver, a_job(PROMPT, stop=(stop,)))
    assert cut == text.partition(stop)[0]
    assert done.reason == "stop"


def test_two_answers_make_headway_together_and_each_is_its_own(driver: Ctranslate2Driver) -> None:
    one, other = a_job(PROMPT, max_tokens=60), a_job((BOS, *b"And when?"), max_tokens=60)
    alone = [answer(driver, a_job(job.prompt, max_tokens=60))[0] for job in (one, other)]
    events = to_the_end(driver, one, other)
    assert [text_of(events[job.id]) for job in (one, other)] == alone


def test_nothing_of_a_cancelled_job_comes_after_and_its_place_is_free(driver: Ctranslate2Driver) -> None:
    jobs = [a_job(PROMPT, max_tokens=1900) for _ in range(2)]
    for job in jobs:
        until_it_writes(driver, job)
        driver.cancel(job.id)
    driver.cancel("nobody knows it")
    after = a_job(PROMPT)
    assert set(to_the_end(driver, after)) == {after.id}
    assert not driver.step()


def test_samplers_draw_other_words(driver: Ctranslate2Driver) -> None:
    texts = {answer(driver, a_job(PROMPT, temperature=2.0, top_p=0.98, top_k=5000))[0] for _ in range(4)}
    assert len(texts) > 1
    plain, _ = answer(driver, a_job(PROMPT, max_tokens=60))
    varied, _ = answer(driver, a_job(PROMPT, max_tokens=60, repetition_penalty=3.0))
    assert len(set(varied)) > len(set(plain))


def test_the_answer_ends_where_the_context_does(folder: Path) -> None:
    driver = make({"model_path": str(folder), "threads": 1, "context_size": 200})
    assert driver.load(silent).context_size == 200
    _, done = answer(driver, a_job([BOS] * 192, max_tokens=500))
    assert (done.reason, done.new_tokens) == ("length", 8)
    with pytest.raises(Refused, match="210 tokens long, and the model reads 200") as raised:
        driver.begin(a_job([BOS] * 210))
    assert raised.value.code == "context_length"
    driver.close()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"json_schema": {}}, "a JSON schema"),
        ({"regex": "a+"}, "a regular expression"),
        ({"min_p": 0.1}, "min_p"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -0.5}, "presence_penalty"),
    ],
)
def test_what_the_library_cannot_do_is_refused_by_name(
    driver: Ctranslate2Driver, values: dict[str, object], what: str
) -> None:
    with pytest.raises(Refused, match=what) as raised:
        driver.begin(a_job(PROMPT, **values))
    assert raised.value.code == "unsupported"


def test_tokens_that_the_model_does_not_know_are_refused(driver: Ctranslate2Driver) -> None:
    with pytest.raises(Refused, match="does not know"):
        driver.begin(a_job((BOS, 288)))


def test_what_prompts_have_in_common_is_read_once_and_changes_no_word(folder: Path) -> None:
    house = (BOS, *b"You answer from the passages below, and say which. " * 3)
    prompts = [(*house, *f"Question {number}?".encode()) for number in range(8)]
    with_cache = make({"model_path": str(folder), "threads": 1})
    without = make({"model_path": str(folder), "threads": 1, "prompt_cache": False})
    found = []
    for driver in (with_cache, without):
        driver.load(silent)
        found.append([answer(driver, a_job(prompt, max_tokens=12)) for prompt in prompts])
        driver.close()
    assert [text for text, _ in found[0]] == [text for text, _ in found[1]]
    assert [done.cached_tokens for _, done in found[0]] == [0] * 5 + [len(house) + len("Question ")] * 3
    assert not any(done.cached_tokens for _, done in found[1])


def test_only_few_beginnings_are_ever_kept() -> None:
    beginnings = Beginnings()
    kept = set()
    for house in range(40):
        for question in range(6):
            prompt = (*[house] * 100, question, question)
            start, _ = beginnings.split(prompt)
            assert prompt[: len(start)] == start
            assert len(start) < len(prompt)
            kept.add(start)
    assert len(kept - {()}) == 4


def test_a_conversation_is_no_beginning_that_many_share() -> None:
    beginnings, prompt = Beginnings(), tuple(range(100, 300))
    for turn in range(4):
        assert beginnings.split(prompt) == ((), 0)
        prompt = (*prompt, *[turn] * 50)


def test_a_process_with_a_model_at_work_ends_in_peace(folder: Path) -> None:
    code = (
        "import sys\n"
        "from core.serving.drivers.ctranslate2 import make\n"
        "from tests.serving.driving import a_job, silent, until_it_writes\n"
        "driver = make({'model_path': sys.argv[1], 'threads': 1})\n"
        "driver.load(silent)\n"
        "until_it_writes(driver, a_job([256], max_tokens=2000))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# ---------------------------------------------------------------- what cannot be loaded
def loaded(folder: Path, **values: object) -> Ctranslate2Driver:
    made = make({"model_path": str(folder), **values})
    made.load(silent)
    return made


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("size", [0, 10, 1000, 100_000])
def test_weights_that_were_cut_are_refused(copy: Path, size: int) -> None:
    whole = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(whole[:size])
    with pytest.raises(CannotLoad, match="CTranslate2 cannot load it"):
        loaded(copy)


def test_a_published_model_is_to_be_converted_first(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CannotLoad, match="kvasir model convert"):
        loaded(tmp_path)
    with pytest.raises(CannotLoad, match="must be a folder"):
        loaded(tmp_path / "model.safetensors")


def test_a_folder_of_gguf_files_belongs_to_another_engine(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").touch()
    with pytest.raises(CannotLoad, match="llamacpp"):
        loaded(tmp_path)


def test_another_models_tokenizer_is_found_out(copy: Path) -> None:
    words = json.loads((copy / "vocabulary.json").read_text())
    (copy / "vocabulary.json").write_text(json.dumps(words[:100] + words[200:] + words[100:200]))
    with pytest.raises(CannotLoad, match="not of the same model"):
        loaded(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CannotLoad, match=r"tokenizer\.json"):
        loaded(copy)


def test_the_context_is_what_conversion_wrote_down(copy: Path) -> None:
    (copy / "kvasir.json").write_text(json.dumps({"context_size": 100_000, "architecture": "LlamaForCausalLM"}))
    made = make({"model_path": str(copy)})
    card = made.load(silent)
    assert card.context_size == 4096
    assert card.details["architecture"] == "LlamaForCausalLM"
    made.close()
    (copy / "kvasir.json").write_text(json.dumps({"context_size": 1000}))
    with pytest.raises(CannotLoad, match="made for 1000 tokens"):
        loaded(copy, context_size=2000)


def test_a_card_that_is_not_there_is_said_to_be_missing(folder: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a CUDA card here")
    with pytest.raises(CannotLoad, match="no CUDA card"):
        loaded(folder, device="cuda")


# ---------------------------------------------------------------- threads
def test_threads_are_one_less_than_the_cores_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for number in range(8):  # four cores of two threads
        file = tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{number % 4},{number % 4 + 4}\n")
    quota = tmp_path / "cpu.max"
    assert physical_cores(tmp_path, quota) == 4
    assert threads(0, cpus=tmp_path, quota=quota) == 3
    assert threads(7, cpus=tmp_path, quota=quota) == 7
    quota.write_text("150000 100000\n")  # a container's limit
    assert threads(0, cpus=tmp_path, quota=quota) == 1
    quota.write_text("max 100000\n")
    assert physical_cores(tmp_path, quota) == 4
    assert physical_cores(tmp_path / "none", quota) == 8
