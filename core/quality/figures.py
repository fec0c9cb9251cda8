"""Figures added up from what a database counted; plain functions on plain rows."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal

import numpy as np

from core.kb.temporary import base_of
from core.texts import tell

Dimension = Literal["platform", "channel", "kb", "model"]
Step = Literal["hour", "day", "week"]

_MOST_ITEMS: Final = 20
_ALONE: Final = ("web", "terminal", "api")
"""Platforms where a channel is one person."""
_THREAD: Final = base_of("")
"""How the knowledge bases begin that hold the files of one conversation."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: int
    p95: int


@dataclass(frozen=True, slots=True)
class Figures:
    questions: int
    answered: int
    refused: int
    """For want of evidence."""
    failed: int
    stopped: int
    """By whoever asked."""
    up: int
    down: int
    first_token: Latency | None
    total: Latency | None
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of time."""

    at: datetime
    """Its beginning, in the zone that was asked for."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Overview:
    step: Step
    totals: Figures
    before: Figures
    """Of the time just before, as long."""
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One platform, channel, knowledge base or model."""

    key: Mapping[str, str]
    """What narrows a selection down to it; empty where nothing does."""
    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that could not be answered, however it was written."""

    question: str
    count: int
    last_at: datetime
    answer_id: str
    """Of the latest."""
    kbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to narrow a selection down to."""

    platforms: tuple[str, ...]
    channels: tuple[Item, ...]
    kbs: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    """Engine and model."""


@dataclass(slots=True)
class _Sum:
    """Figures while they are added up."""

    counts: list[int] = field(default_factory=lambda: [0] * 7)
    """Questions, answered, refused, failed, stopped, tokens of prompts, tokens of answers."""
    first: list[str] = field(default_factory=list)
    total: list[str] = field(default_factory=list)
    up: int = 0
    down: int = 0

    def add(self, row: Sequence[Any]) -> None:
        """What a query of `Statistics` measured."""
        *counts, first, total = row
        self.counts = [so_far + int(more or 0) for so_far, more in zip(self.counts, counts, strict=True)]
        if first:
            self.first.append(first)
        if total:
            self.total.append(total)

    def rate(self, value: int, count: int) -> None:
        if value > 0:
            self.up += count
        else:
            self.down += count

    def figures(self) -> Figures:
        questions, answered, refused, failed, stopped, prompts, answers = self.counts
        return Figures(
            questions=questions,
            answered=answered,
            refused=refused,
            failed=failed,
            stopped=stopped,
            up=self.up,
            down=self.down,
            first_token=_latency(self.first),
            total=_latency(self.total),
            prompt_tokens=prompts,
            answer_tokens=answers,
        )


def normal(question: str) -> str:
    """Equal for questions that differ in letters' case, signs and blanks alone."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


# ---------------------------------------------------------------- over time
def over_time(
    answers: Iterable[Sequence[Any]],
    ratings: Iterable[Sequence[Any]],
    step: Step,
    bounds: tuple[datetime, datetime],
    clock: tzinfo,
) -> Overview:
    totals, before = _Sum(), _Sum()
    stretches: dict[datetime, _Sum] = {start: _Sum() for start in _starts(*bounds, step, clock)}
    for hour, is_now, *measures in answers:
        (totals if is_now else before).add(measures)
        if is_now:
            stretches.setdefault(_start(_moment(hour, clock), step), _Sum()).add(measures)
    for hour, is_now, value, count in ratings:
        (totals if is_now else before).rate(value, count)
        if is_now:
            stretches.setdefault(_start(_moment(hour, clock), step), _Sum()).rate(value, count)
    points = tuple(Point(start, stretches[start].figures()) for start in sorted(stretches))
    return Overview(step, totals.figures(), before.figures(), points)


def _moment(hour: str, clock: tzinfo) -> datetime:
    return datetime.strptime(hour, "%Y-%m-%d %H").replace(tzinfo=UTC).astimezone(clock)


def _start(moment: datetime, step: Step) -> datetime:
    """Of the stretch that a moment is in; weeks begin on Monday."""
    if step == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return day - timedelta(days=day.weekday()) if step == "week" else day


def _starts(since: datetime, until: datetime, step: Step, clock: tzinfo) -> Iterable[datetime]:
    if step == "hour":  # in UTC, since an hour may come twice or not at all on the clock
        at = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while at < until:
            yield _start(at.astimezone(clock), step)
            at += timedelta(hours=1)
        return
    day = _start(since.astimezone(clock), step)
    while day < until:
        yield day
        day += timedelta(days=7 if step == "week" else 1)


# ---------------------------------------------------------------- by place, knowledge base and model
def by_dimension(
    answers: Iterable[Sequence[Any]], ratings: Iterable[Sequence[Any]], names: Mapping[tuple[str, str, str], str]
) -> Mapping[Dimension, Sequence[Item]]:
    sums: dict[Dimension, dict[tuple[str, ...], _Sum]] = {
        "platform": defaultdict(_Sum),
        "channel": defaultdict(_Sum),
        "kb": defaultdict(_Sum),
        "model": defaultdict(_Sum),
    }
    for platform, workspace, channel, kbs, engine, model, *measures in answers:
        for dimension, key in _keys(platform, workspace, channel, kbs, engine, model):
            sums[dimension][key].add(measures)
    for platform, workspace, channel, kbs, engine, model, value, count in ratings:
        for dimension, key in _keys(platform, workspace, channel, kbs, engine, model):
            sums[dimension][key].rate(value, count)
    return {dimension: _items(dimension, found, names) for dimension, found in sums.items()}


def _keys(
    platform: str, workspace: str, channel: str, kbs: str, engine: str, model: str
) -> Iterable[tuple[Dimension, tuple[str, ...]]]:
    yield "platform", (platform,)
    if channel and platform not in _ALONE:
        yield "channel", (platform, workspace, channel)
    for kb in dict.fromkeys("" if name.startswith(_THREAD) else name for name in _kbs(kbs)):
        yield "kb", (kb,)
    if engine:
        yield "model", (engine, model)


def _items(
    dimension: Dimension, sums: Mapping[tuple[str, ...], _Sum], names: Mapping[tuple[str, str, str], str]
) -> Sequence[Item]:
    ordered = sorted(sums.items(), key=lambda pair: (-pair[1].counts[0], pair[0]))[:_MOST_ITEMS]
    return [_item(dimension, key, found.figures(), names) for key, found in ordered]


def _item(
    dimension: Dimension, key: tuple[str, ...], figures: Figures, names: Mapping[tuple[str, str, str], str]
) -> Item:
    match dimension, key:
        case "channel", (platform, workspace, channel):
            place = (platform, workspace, channel)
            return Item(_channel_key(place), names.get(place, channel), figures)
        case "model", (engine, model):
            return Item({"engine": engine, "model": model}, model or engine, figures)
        case "kb", ("",):
            return Item({}, tell("files_of_threads"), figures)
    return Item({dimension: key[0]}, key[0], figures)


def _channel_key(place: tuple[str, str, str]) -> Mapping[str, str]:
    return dict(zip(("platform", "workspace", "channel"), place, strict=True))


def named_channels(rows: Iterable[Sequence[Any]]) -> Mapping[tuple[str, str, str], str]:
    return {(platform, workspace, channel): name for platform, workspace, channel, name in rows}


def _kbs(listed: str) -> Sequence[str]:
    return [str(name) for name in json.loads(listed or "[]")]


# ---------------------------------------------------------------- what there is
def choices_of(rows: Sequence[Sequence[Any]], names: Mapping[tuple[str, str, str], str]) -> Choices:
    """What occurs in rows of platform, workspace, channel, knowledge bases, engine and model."""
    channels: dict[tuple[str, str, str], None] = {}
    kbs: set[str] = set()
    for platform, workspace, channel, listed, _engine, _model in rows:
        kbs |= {kb for kb in _kbs(listed) if not kb.startswith(_THREAD)}
        if channel and platform not in _ALONE:
            channels[platform, workspace, channel] = None
    empty = _Sum().figures()
    return Choices(
        platforms=tuple(sorted({row[0] for row in rows})),
        channels=tuple(
            sorted(
                (Item(_channel_key(place), names.get(place, place[2]), empty) for place in channels),
                key=lambda item: (item.key["platform"], item.name),
            )
        ),
        kbs=tuple(sorted(kbs)),
        models=tuple(sorted({(row[4], row[5]) for row in rows if row[4]})),
    )


# ---------------------------------------------------------------- unanswered
def grouped(rows: Sequence[Sequence[Any]], limit: int) -> tuple[Sequence[Unanswered], int]:
    groups: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        groups[normal(row[0])].append(row)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), -group[0][1].timestamp()))
    found = [
        Unanswered(question, len(group), at, answer_id, tuple(str(kb) for kb in kbs))
        for group in ordered[:limit]
        for question, at, answer_id, kbs in group[:1]
    ]
    return found, len(groups)


def _latency(lists: Sequence[str]) -> Latency | None:
    if not lists:
        return None
    p50, p95 = np.percentile(np.fromstring(",".join(lists), dtype=np.int64, sep=","), (50, 95))
    return Latency(round(float(p50)), round(float(p95)))
