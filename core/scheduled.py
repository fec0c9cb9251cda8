"""What can be done by schedule. A new kind is one line in KINDS, and its words in `texts.py`: `schedule_<kind>`, and
`schedule_<kind>_<field>` for each field; `job_about_<kind>` says in the list of jobs what one of them is about.

The function gets the job, whose payload holds `target`, `settings` and `run`, and gives one sentence: what came of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import select

from core.chats import digests
from core.db.tables import ConversationRow
from core.errors import UserError
from core.quality import curated, evaluations
from core.sources import sync
from core.texts import CATALOGUE, tell
from core.upkeep import backups, retention
from core.work.jobs import Job

if TYPE_CHECKING:
    from core.app import Kvasir

Work: TypeAlias = "Callable[[Kvasir, Job], Awaitable[str]]"
Targets: TypeAlias = "Callable[[Kvasir], Awaitable[Sequence[Target]]]"


@dataclass(frozen=True, slots=True)
class Target:
    """Something that a schedule can be for."""

    id: str
    name: str
    kb: str = ""
    """The knowledge base it belongs to; empty: to none."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something to be set for a schedule of one kind."""

    name: str
    default: int | bool | str
    kind: Literal["number", "checkbox", "text", "select"] = "number"
    least: int = 0
    most: int = 1_000_000
    options: Targets | None = None
    """What can be chosen."""


@dataclass(frozen=True, slots=True)
class Kind:
    work: Work
    fields: tuple[Field, ...] = ()
    targets: Targets | None = None
    """What a schedule of this kind can be for; None: it needs nothing of the sort."""


async def _evaluation_sets(kvasir: Kvasir) -> Sequence[Target]:
    return [Target(one.id, one.name, one.kb) for one in await kvasir.evaluations.every()]


async def _sources(kvasir: Kvasir) -> Sequence[Target]:
    return [Target(*found) for found in await kvasir.sources.names()]


async def _platforms(kvasir: Kvasir) -> Sequence[Target]:
    """Those that anybody has asked on."""
    async with kvasir.db.read() as session:
        names = await session.scalars(select(ConversationRow.platform).distinct().order_by(ConversationRow.platform))
        return [Target(retention.EVERYWHERE, tell("schedule_all_platforms")), *(Target(name, name) for name in names)]


async def _periods(_kvasir: Kvasir) -> Sequence[Target]:
    return [Target(name, tell(f"schedule_{name}")) for name in ("daily", "weekly")]


async def _places(kvasir: Kvasir) -> Sequence[Target]:
    """Channels that something is known of."""
    found = [Target("", tell("schedule_all_channels"))]
    for known in await kvasir.channels.list():
        place = known.place
        if place.channel:
            key = f"{place.platform}:{place.workspace}:{place.channel}"
            found.append(Target(key, f"{place.platform}: {known.name or place.channel}"))
    return found


KINDS: Final[Mapping[str, Kind]] = {
    "sync": Kind(sync.run, targets=_sources),
    "retention": Kind(
        retention.run,
        (
            Field("days", 365, least=1, most=retention.LONGEST_DAYS),
            Field("platform", "*", "select", most=32, options=_platforms),
        ),
    ),
    "curated": Kind(curated.run),
    "evaluation": Kind(evaluations.run, targets=_evaluation_sets),
    "backup": Kind(backups.run, (Field("keep", 7, least=1, most=1000), Field("index", False, "checkbox"))),
    "digest": Kind(
        digests.run,
        (
            Field("period", "weekly", "select", most=20, options=_periods),
            Field("place", "", "select", most=600, options=_places),
            Field("everything", True, "checkbox"),
            Field("unanswered", True, "checkbox"),
            Field("down", True, "checkbox"),
        ),
    ),
}


def checked(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a schedule, with the defaults of those that are not given. Raises UserError."""
    fields = {field.name: field for field in KINDS[kind].fields}
    if unknown := settings.keys() - fields.keys():
        raise UserError(tell("schedule_bad_setting", names=", ".join(sorted(unknown))[:200]))
    return {name: _checked(kind, field, settings.get(name, field.default)) for name, field in fields.items()}


def _checked(kind: str, field: Field, value: Any) -> int | bool | str:
    """Raises UserError, which names the field as people know it."""
    label = tell(f"schedule_{kind}_{field.name}")
    if field.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        if field.least <= value <= field.most:
            return value
        raise UserError(tell("schedule_field_range", field=label, least=field.least, most=field.most))
    if (field.kind == "checkbox" and isinstance(value, bool)) or (
        field.kind in ("text", "select") and isinstance(value, str) and len(value) <= field.most
    ):
        return value
    raise UserError(tell("schedule_field_bad", field=label))


async def target_of(kvasir: Kvasir, kind: str, target: str) -> Target | None:
    """What a schedule is for; None where this kind needs nothing. Raises UserError where there is no such thing."""
    targets = KINDS[kind].targets
    if targets is None:
        return None
    found = next((item for item in await targets(kvasir) if item.id == target), None)
    if found is None:
        raise UserError(tell("schedule_no_target", kind=tell(f"schedule_{kind}")))
    return found


def about(job: Job) -> str:
    """What a job is about, in words."""
    key = f"job_about_{job.kind}"
    values = {"kb": job.payload.get("kb", ""), "name": job.payload.get("name", "")}
    return tell(key, **values) if key in CATALOGUE else str(values["name"] or values["kb"] or job.kind)


def title(kind: str) -> str:
    """The kind of a job in words."""
    return next((tell(key) for key in (f"schedule_{kind}", f"job_{kind}") if key in CATALOGUE), kind)
