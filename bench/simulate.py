"""How long people wait at the busiest moment, for so many processes: their inbox, limits, quotas and queues are the
real ones, on a real database; the platforms, the model and the clock are not.

    python -m bench.simulate --processes 3,6,12
    python -m bench.simulate --processes 4 --parallel 64 --zipf 1.0 --seconds 300
    python -m bench.simulate --real --processes 1,2 --rate 10 --seconds 20    # real processes, real time

Each process is what `kvasir up bots` has for a platform (`bots/intake.py`, `handler.py`, `streaming.py`); what costs
CPU costs the time that `bench/capacity.py` says, one thing at a time in each process. The load is its load: a quarter
of the time the mean, half of it the peak, a quarter the mean again, over the channels by Zipf's law.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import random
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, cast

from bench import virtual
from bench.capacity import Load, Means
from bench.common import quantile
from bots.errors import Limited
from bots.handler import ChatHandler
from bots.inbox import BEAT_SECONDS, Inbox
from bots.intake import Intake
from bots.platform import Controls, Stream
from bots.rendering.parts import Part
from core.answering.conversation import Conversation
from core.app import Kvasir
from core.chats.channels import Channels
from core.db import migrate
from core.db.session import Database
from core.db.tables import now
from core.settings import ChannelsSettings, Settings
from core.types import (
    AnswerEvent,
    Capabilities,
    Delta,
    Finished,
    Mention,
    Person,
    Place,
    Question,
    Sources,
)
from core.work.limits import Limits
from core.work.presence import BEAT_SECONDS as PRESENCE_SECONDS
from core.work.presence import Presence

Platform = Literal["slack", "discord", "telegram"]

_CALL_SECONDS: Final = 0.12
"""One call of a platform."""
_DELTAS: Final = 20
"""Pieces an answer comes in; an engine has more, which are gathered before they are shown."""
_SHARE: Final[dict[Platform, float]] = {"slack": 0.5, "discord": 0.4, "telegram": 0.1}
_CAN: Final[dict[Platform, Capabilities]] = {
    "slack": Capabilities(12_000, "native", 1.2),
    "discord": Capabilities(2000, "edit", 1.2, 1.1),
    "telegram": Capabilities(4096, "edit", 3.2, 1.6),
}
_ALLOWED: Final[dict[Platform, tuple[int, float]]] = {"slack": (60, 60.0), "discord": (5, 5.0), "telegram": (20, 60.0)}
"""New messages and edits in one channel, and within how many seconds; Slack's stream is limited by itself."""
_CHANNELS_OF_WORKSPACE: Final = 20
_PEOPLE_OF_CHANNEL: Final = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated, besides the load."""

    seconds: float = 120.0
    channels: int = 10_000
    zipf: float = 0.7
    """0: all alike; 1: the busiest of ten thousand has a tenth of everything, more than a platform lets us write."""
    parallel: int = 256
    """`channels.parallel` of each process."""
    engine_parallel: int = 1200
    """Answers that the engine writes at a time; what comes beyond waits there."""
    token_seconds: float = 0.02
    """Of one answer, however many are written."""
    prefill_seconds: float = 0.5
    quota: int = 0
    """`channels.questions_per_minute`."""
    seed: int = 1


@dataclass
class Seen:
    """What became of the questions; times are the simulation's, in seconds."""

    asked: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    """Whole answers by question; one each is right."""
    limited: int = 0
    """Calls that a platform refused."""
    refused: int = 0
    """Questions beyond a quota."""
    queues: list[int] = field(default_factory=list)
    """Questions that were asked and not begun, second by second."""

    def waits(self, what: dict[str, float]) -> list[float]:
        return [at - self.asked[name] for name, at in what.items()] or [0.0]


# ---------------------------------------------------------------- the world around
class Town:
    """Platforms with their limits, and people who see what stands there."""

    def __init__(self, clock: virtual.Clock, seen: Seen) -> None:
        self.clock = clock
        self.seen = seen
        self._numbers = itertools.count(1)
        self._sent: dict[tuple[str, ...], deque[float]] = {}

    async def call(self, place: Place, *, is_free: bool = False) -> str:
        """One call of a platform; gives the id of a message."""
        await asyncio.sleep(_CALL_SECONDS)
        if not is_free:
            most, within = _ALLOWED[cast(Platform, place.platform)]
            sent = self._sent.setdefault(_counted(place), deque())
            while sent and sent[0] <= self.clock.now - within:
                sent.popleft()
            if len(sent) >= most:
                self.seen.limited += 1
                raise Limited(sent[0] + within - self.clock.now)
            sent.append(self.clock.now)
        return str(next(self._numbers))

    def stands(self, mention: Mention, *, whole: bool) -> None:
        self.seen.first.setdefault(mention.message_id, self.clock.now)
        if whole:
            self.seen.whole.setdefault(mention.message_id, self.clock.now)
            self.seen.answers[mention.message_id] = self.seen.answers.get(mention.message_id, 0) + 1


def _counted(place: Place) -> tuple[str, ...]:
    """What a platform counts our messages in: on Discord each answer has a thread, which is a channel of its own."""
    return (place.workspace, place.channel, *((place.thread,) if place.platform == "discord" else ()))


class ScriptedMessenger:
    """The port `Messenger` of one platform."""

    connected, standing_by = True, False

    def __init__(self, name: Platform, town: Town) -> None:
        self.name: str = name
        self.spread = name == "slack"
        self._town = town

    def surface(self, mention: Mention) -> ScriptedSurface:
        return ScriptedSurface(mention, self._town)


class ScriptedSurface:
    """The port `Surface`."""

    repeatable = True

    def __init__(self, mention: Mention, town: Town) -> None:
        self.capabilities = _CAN[cast(Platform, mention.place.platform)]
        self.tempo = "/".join(_counted(mention.place))
        self._mention = mention
        self._town = town

    def preview(self, text: str, status: str) -> Part:
        return Part(text or status)

    def whole(self, finished: Finished) -> Sequence[Part]:
        return [Part(finished.text)]

    def plain(self, text: str) -> Part:
        return Part(text)

    async def working(self, part: Part) -> None:  # noqa: ARG002  the port
        await self._town.call(self._mention.place, is_free=True)

    async def send(self, part: Part, controls: Controls, key: str) -> str:  # noqa: ARG002  the port
        post = await self._town.call(self._mention.place)
        self._town.stands(self._mention, whole=bool(controls.answer_id))
        return post

    async def edit(self, post: str, part: Part, controls: Controls) -> None:  # noqa: ARG002  the port
        await self._town.call(self._mention.place)
        self._town.stands(self._mention, whole=bool(controls.answer_id))

    async def delete(self, post: str) -> None:  # noqa: ARG002  the port
        return None

    async def find(self, known: Sequence[str]) -> str | None:  # noqa: ARG002  the port
        return None

    async def stream(self, status: str) -> Stream | None:  # noqa: ARG002  the port
        post = await self._town.call(self._mention.place)
        self._town.stands(self._mention, whole=False)
        return ScriptedStream(post, self._mention, self._town)


class ScriptedStream:
    """The port `Stream`."""

    def __init__(self, post: str, mention: Mention, town: Town) -> None:
        self.post = post
        self._mention = mention
        self._town = town

    async def status(self, text: str) -> None:  # noqa: ARG002  the port
        await self._town.call(self._mention.place, is_free=True)

    async def append(self, text: str) -> None:  # noqa: ARG002  the port
        await self._town.call(self._mention.place, is_free=True)

    async def close(self, rest: str, finished: Finished, controls: Controls) -> None:  # noqa: ARG002  the port
        await self._town.call(self._mention.place, is_free=True)
        self._town.stands(self._mention, whole=True)


class ScriptedAnswers:
    """What `core/answer.py` gives, after the time that it takes: our CPU, then the engine's."""

    def __init__(self, plan: Plan, load: Load, means: Means, town: Town, engine: asyncio.Semaphore) -> None:
        self._cpu = asyncio.Lock()
        heard = load.messages / load.questions
        self._cpu_seconds = (means.question_ms + heard * means.event_ms) / 1000
        self._plan = plan
        self._tokens = load.answer_tokens
        self._town = town
        self._engine = engine
        self._chance = random.Random(plan.seed)

    async def answer(self, question: Question) -> AsyncIterator[AnswerEvent]:
        self._town.seen.begun.setdefault(question.text, self._town.clock.now)
        async with self._cpu:
            await asyncio.sleep(self._cpu_seconds)
        yield Sources((), question.text)
        tokens = self._tokens * self._chance.lognormvariate(-0.125, 0.5)
        text = ""
        async with self._engine:
            await asyncio.sleep(self._plan.prefill_seconds)
            for number in range(_DELTAS):
                await asyncio.sleep(tokens / _DELTAS * self._plan.token_seconds)
                text += f"{number} words of an answer that comes as it is written. "
                yield Delta(f"{number} words of an answer that comes as it is written. ")
        yield Finished(question.answer_id or "", text, True, (), "", question.text, {})

    async def recorded(self, answer_id: str) -> Finished | None:  # noqa: ARG002  none is kept
        return None


# ---------------------------------------------------------------- one process
class Process:
    """What `kvasir up bots` has, but for what connects it."""

    def __init__(self, db: Database, plan: Plan, answers: ScriptedAnswers, town: Town) -> None:
        settings = Settings(
            channels=ChannelsSettings(parallel=plan.parallel, questions_per_minute=plan.quota, default_kb="handbook"),
            language="en",
        )
        self.presence = Presence(db)
        self.presence.say("bots", dict.fromkeys(_SHARE, "connected"))
        self.limits = Limits(db, self.presence)
        knowledge = SimpleNamespace(names=_names)
        parts: dict[str, Any] = {
            "settings": settings,
            "db": db,
            "answers": answers,
            "presence": self.presence,
            "limits": self.limits,
            "channels": Channels(db, settings.channels),
            "conversations": SimpleNamespace(open=_conversation, known=_never),
            "knowledge": knowledge,
            "temporary": SimpleNamespace(has=_never),
            "accounts": SimpleNamespace(may=lambda *_, **__: True),
        }
        kvasir = cast(Kvasir, SimpleNamespace(**parts))
        handler, inbox = ChatHandler(kvasir), Inbox(db)
        self.intakes: dict[str, Intake] = {
            name: Intake(kvasir, handler, cast(Any, ScriptedMessenger(name, town)), inbox) for name in _SHARE
        }

    async def live(self) -> None:
        """What `bots/runner.py` does beside: leases are renewed, what others left is taken over, limits are shared."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.limits.run())
            group.create_task(_every(PRESENCE_SECONDS, self.presence.beat))
            for intake in self.intakes.values():
                group.create_task(_every(BEAT_SECONDS, intake.keep_leases))
                group.create_task(_every(BEAT_SECONDS, intake.take_over))


async def _every(seconds: float, what: Callable[[], Any]) -> None:
    while True:
        await what()
        await asyncio.sleep(seconds)


async def _names() -> Sequence[SimpleNamespace]:
    return [SimpleNamespace(name="handbook", private=False)]


async def _never(*_: object) -> bool:
    return False


async def _conversation(place: Place, person: str) -> Conversation:
    return Conversation("c" * 32, place, person, "known", None, now(), now())


# ---------------------------------------------------------------- the load
@dataclass(frozen=True, slots=True)
class Asking:
    at: float
    mention: Mention
    to: int
    """Which process hears of it."""


def askings(load: Load, plan: Plan, processes: int) -> Sequence[Asking]:
    """All questions in their order; the same for the same seed."""
    chance, anybody = random.Random(plan.seed), random.Random(plan.seed)
    mean = load.people * load.questions / 86_400
    weights = list(itertools.accumulate(1 / number**plan.zipf for number in range(1, plan.channels + 1)))
    kinds = random.Random(plan.seed).choices(list(_SHARE), list(_SHARE.values()), k=plan.channels)
    found: list[Asking] = []
    at = 0.0
    while at < plan.seconds:
        is_peak = plan.seconds / 4 <= at < plan.seconds * 3 / 4
        at += chance.expovariate(mean * (load.peak if is_peak else 1.0))
        channel = chance.choices(range(plan.channels), cum_weights=weights)[0]
        name = f"q{len(found)}"
        kind, workspace = kinds[channel], channel // _CHANNELS_OF_WORKSPACE
        person = Person(f"{kind}:{workspace}:{channel}-{chance.randrange(_PEOPLE_OF_CHANNEL)}", "", member=True)
        place = Place(kind, f"W{workspace}", f"C{channel}", name)
        # Slack gives to anybody who is connected, a shard of Discord belongs to one, and so does Telegram's polling.
        to = {"slack": anybody.randrange(processes), "discord": workspace % processes, "telegram": 0}[kind]
        found.append(Asking(at, Mention(place, name, person, name, trigger="mention"), to))
    return found


async def simulate(clock: virtual.Clock, folder: Path, load: Load, means: Means, plan: Plan, processes: int) -> Seen:
    """One run, until every question has its answer."""
    seen = Seen()
    db = virtual.CountedDatabase(f"sqlite+aiosqlite:///{folder / f'{processes}-{plan.parallel}.db'}", clock)
    clock.under_way += 1
    await migrate.upgrade(db)
    clock.under_way -= 1
    town = Town(clock, seen)
    engine = asyncio.Semaphore(plan.engine_parallel)
    running = [Process(db, plan, ScriptedAnswers(plan, load, means, town, engine), town) for _ in range(processes)]
    for process in running * 2:  # the second time each hears of all
        await process.presence.beat()
    living = [asyncio.create_task(process.live()) for process in running]
    living.append(asyncio.create_task(_every(1.0, lambda: _count(seen))))
    begun = clock.now
    try:
        async with asyncio.TaskGroup() as people:
            for asking in askings(load, plan, processes):
                await asyncio.sleep(begun + asking.at - clock.now)
                mention = replace(asking.mention, said_at=now())
                seen.asked[mention.message_id] = clock.now
                people.create_task(_ask(running[asking.to].intakes[mention.place.platform], mention, seen))
        for process in running:
            for intake in process.intakes.values():
                await intake.idle()
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        await db.close()
    return seen


async def _ask(intake: Intake, mention: Mention, seen: Seen) -> None:
    if await intake.take(mention):
        seen.refused += 1


async def _count(seen: Seen) -> None:
    seen.queues.append(len(seen.asked) - len(seen.begun) - seen.refused)


# ---------------------------------------------------------------- the command
HEAD: Final = (
    "| processes | parallel | questions | peak | longest queue | begun after p50/p95/p99/longest "
    "| first sign p50/p95/p99/longest | whole answer p50/p95/p99/longest | refused by platforms | answered once |"
)


def row(processes: int, load: Load, plan: Plan, seen: Seen) -> str:
    peak = load.people * load.questions / 86_400 * load.peak
    once = sum(count == 1 for count in seen.answers.values())
    cells = [
        str(processes), str(plan.parallel), f"{len(seen.asked):,}", f"{peak:.0f} /s",
        f"{max(seen.queues, default=0):,}",
        *(_waits(seen.waits(what)) for what in (seen.begun, seen.first, seen.whole)),
        f"{seen.limited:,}", f"{once:,} of {len(seen.asked) - seen.refused:,}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _waits(found: list[float]) -> str:
    return " / ".join(f"{one:.1f}" for one in (*(quantile(found, q) for q in (0.5, 0.95, 0.99)), max(found))) + " s"


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description="How long people wait.")
    parser.add_argument("--processes", default="2,3,6", help="how many, one run each, e.g. 3,6,12")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--real", action="store_true", help="real processes and real time; of the plan only --seconds")
    parser.add_argument("--rate", type=float, default=10.0, help="with --real: questions a second")
    for part in (Plan(), Load()):
        group = parser.add_argument_group(type(part).__name__.lower())
        for name, value in asdict(part).items():
            group.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given: dict[str, Any] = vars(parser.parse_args(list(arguments)))
    plan = Plan(**{name: given[name] for name in asdict(Plan())})
    load = Load(**{name: given[name] for name in asdict(Load())})
    logging.disable(logging.ERROR)
    counts = [int(one) for one in given["processes"].split(",")]
    if given["real"]:
        _really(counts, given["rate"], plan.seconds)
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in counts:

            async def one(clock: virtual.Clock, count: int = processes) -> Seen:
                return await simulate(clock, Path(folder), load, Means(), plan, count)

            seen = virtual.run(one)
            if given["json"]:
                lines.append(asdict(seen) | {"processes": processes})
                continue
            if not lines:
                print(f"{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}")
            lines.append({})
            print(row(processes, load, plan, seen), flush=True)
    if given["json"]:
        print(json.dumps({"plan": asdict(plan), "load": asdict(load), "runs": lines}))


def _really(counts: Sequence[int], rate: float, seconds: float) -> None:
    from bench import several  # late: it wants a server, and what only tests need

    print(f"{several.HEAD}\n|{'---|' * (several.HEAD.count('|') - 1)}")
    for processes in counts:
        with tempfile.TemporaryDirectory() as folder:
            print(asyncio.run(several.measure(Path(folder), processes, rate, seconds)), flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
