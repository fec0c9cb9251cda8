"""Drives a driver as a worker's loop does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from core.serving.driver import Broke, Done, Event, Job, Piece, TextDriver

_ids = itertools.count()
_LONGEST = 60.0


def silent(stage: str, done: int, total: int) -> None:
    """For who wants to know nothing of loading."""


def a_job(prompt: Sequence[int], **values: Any) -> Job:
    return Job(**{"id": f"job-{next(_ids)}", "prompt": tuple(prompt), "max_tokens": 24, **values})


def to_the_end(driver: TextDriver, *jobs: Job) -> dict[str, list[Event]]:
    """The jobs' events, all begun at once."""
    found: dict[str, list[Event]] = {job.id: [] for job in jobs}
    for job in jobs:
        driver.begin(job)
    open_jobs, deadline = {job.id for job in jobs}, time.monotonic() + _LONGEST
    while open_jobs:
        assert time.monotonic() < deadline, f"not ended: {open_jobs}"
        for event in driver.step():
            if event.job_id in found:
                found[event.job_id].append(event)
            if isinstance(event, (Done, Broke)):
                open_jobs.discard(event.job_id)
    return found


def answer(driver: TextDriver, job: Job) -> tuple[str, Done]:
    """Its text, and how it ended."""
    events = to_the_end(driver, job)[job.id]
    assert isinstance(events[-1], Done), events[-1]
    return text_of(events), events[-1]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


def until_it_writes(driver: TextDriver, job: Job) -> None:
    """Begun, and its first text seen."""
    driver.begin(job)
    deadline = time.monotonic() + _LONGEST
    while not any(isinstance(event, Piece) and event.job_id == job.id for event in driver.step()):
        assert time.monotonic() < deadline
