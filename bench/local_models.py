"""How fast a model is on this machine, by its driver alone: reading a prompt, writing one answer, and several at once.

    python -P -m bench.local_models llamacpp model.gguf
    python -P -m bench.local_models ctranslate2 folder --threads 3 --parallel 2

Run it by the Python of the environment that has the engine's library.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from core.serving.driver import Done, Job, TextDriver
from core.serving.kinds import make_driver
from core.serving.templates import Message, Templates

_PASSAGE = (
    "Every employee has twenty-eight days of annual leave. It is asked for two weeks before it begins, in the tool "
    "that the handbook names, and who has asked first has it first. What is left in December goes into the next year. "
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kind", choices=("llamacpp", "ctranslate2", "exllamav2", "exllamav3"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    values = {"model_path": str(given.model), "threads": given.threads, "parallel": given.parallel}
    driver = make_driver(given.kind, values)
    began = time.perf_counter()
    card = driver.load(lambda _stage, _done, _total: None)
    print(f"loaded in {time.perf_counter() - began:.1f} s: {card.model}, {dict(card.details)}")
    measure(driver, card.parallel, given.tokens, int(card.details.get("threads") or 1))  # type: ignore[arg-type]  # all of these kinds write text
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")
    driver.close()


def measure(driver: TextDriver, parallel: int, tokens: int, threads: int) -> None:
    templates = Templates(driver.tokenizer)

    def job(number: int, passages: int, most: int) -> Job:
        text = f"{number}. {_PASSAGE * passages}\nTell me the whole story of leave number {number}."
        return Job(f"{number}-{passages}", tuple(templates.tokens([Message("user", text)])), max_tokens=most)

    timed(driver, [job(0, 1, 8)])  # what the first call sets up
    long = job(1, 18, 1)
    tell("reads a prompt", len(long.prompt), timed(driver, [long]), threads)
    took = timed(driver, [job(2, 1, tokens)])
    tell("writes an answer", took.tokens, took, threads)
    if parallel > 1:
        took = timed(driver, [job(3 + number, 1, tokens) for number in range(parallel)])
        tell(f"writes {parallel} answers at once", took.tokens, took, threads)


@dataclass(frozen=True, slots=True)
class Took:
    seconds: float
    cpu: float
    tokens: int


def tell(what: str, tokens: int, took: Took, threads: int) -> None:
    """The rate by the clock, and that on a machine with nothing else to do: by the processor's time."""
    alone = tokens * threads / took.cpu
    print(f"{what}: {tokens} tokens in {took.seconds:.1f} s, {tokens / took.seconds:.0f}/s; alone about {alone:.0f}/s")


def timed(driver: TextDriver, jobs: list[Job]) -> Took:
    """All of them, begun at once."""
    began, cpu, written, left = time.perf_counter(), time.process_time(), 0, len(jobs)
    for job in jobs:
        driver.begin(job)
    while left:
        for event in driver.step():
            if isinstance(event, Done):
                written += event.new_tokens
                left -= 1
    return Took(time.perf_counter() - began, time.process_time() - cpu, written)


if __name__ == "__main__":
    main()
