"""When something is due: the five fields of cron, checked with a sentence for each mistake, and said in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from core.errors import UserError
from core.texts import tell

if TYPE_CHECKING:  # it takes longer to import than most commands take
    from apscheduler.triggers.base import BaseTrigger

PRESETS: Final = {"hourly": "0 * * * *", "daily": "0 3 * * *", "weekly": "0 3 * * mon", "monthly": "0 3 1 * *"}
"""Words that may stand in the place of the five fields."""

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_STEP: Final = timedelta(minutes=1)
_PART: Final = re.compile(r"(\*|[a-z0-9]{1,3})(?:-([a-z0-9]{1,3}))?(?:/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    words: Sequence[str] = ()
    """Names of its values, from `least` on."""


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """Times that come again and again."""

    text: str
    """The five fields, with one blank between two."""
    timezone: tzinfo
    _values: tuple[frozenset[int], ...]

    def next(self, after: datetime) -> datetime | None:
        """The first time later than `after`, in UTC; None: never again."""
        trigger = self.trigger()
        before = after.astimezone(self.timezone).replace(tzinfo=None)
        start = after
        while (found := trigger.get_next_fire_time(None, start)) is not None:
            local = found.astimezone(self.timezone).replace(tzinfo=None, fold=0)
            if found > after and local != before:
                return datetime.fromtimestamp(found.timestamp(), UTC)
            start += _STEP  # in the hour that clocks repeat, the same time comes again
        return None

    def upcoming(self, after: datetime, count: int) -> list[datetime]:
        times: list[datetime] = []
        while len(times) < count and (found := self.next(times[-1] if times else after)):
            times.append(found)
        return times

    def trigger(self) -> BaseTrigger:
        """For APScheduler, whose weeks begin on Monday, and which has no «or» between day and weekday, as cron has."""
        from apscheduler.triggers.combining import OrTrigger
        from apscheduler.triggers.cron import CronTrigger

        minute, hour, day, month = (_joined(values) for values in self._values[:4])
        names = ",".join(_DAYS[value] for value in sorted(self._values[4]))
        fixed = {"minute": minute, "hour": hour, "month": month, "timezone": self.timezone}
        _, _, day_text, _, weekday_text = self.text.split(" ")
        if day_text.startswith("*") or weekday_text.startswith("*"):
            return CronTrigger(day=day, day_of_week=names, **fixed)
        return OrTrigger([CronTrigger(day=day, **fixed), CronTrigger(day_of_week=names, **fixed)])


def parse(text: str, timezone: str = "UTC") -> Cron:
    """Raises UserError with what is wrong in which field."""
    zone = zone_of(timezone)
    normal = " ".join(PRESETS.get(text.strip().lower(), text).lower().split())
    parts = normal.split(" ")
    if len(parts) != len(_FIELDS):
        raise UserError(tell("cron_five_fields", count=len(parts) if normal else 0))
    values = tuple(_values(field, part) for field, part in zip(_FIELDS, parts, strict=True))
    found = Cron(normal, zone, (*values[:4], frozenset(value % 7 for value in values[4])))
    if found.next(datetime.now(UTC)) is None:
        raise UserError(tell("cron_never"))
    return found


def zone_of(name: str) -> tzinfo:
    """Raises UserError for a time zone that this machine does not know."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # a path, a folder of zones, and an unknown name
        raise UserError(tell("cron_bad_timezone", name=name[:60])) from error


def in_words(text: str) -> str:
    """What a person calls it, e.g. «every day at 03:00»; the fields themselves where they are out of the ordinary."""
    parts = text.split(" ")
    if len(parts) != len(_FIELDS):
        return text
    minute, hour, day, month, weekday = parts
    every = re.fullmatch(r"\*/([0-9]+)", minute)
    if parts[1:] == ["*"] * 4 and every:
        return tell("cron_every_minutes", count=every[1])
    if not minute.isdigit() or month != "*":
        return text
    if (hour, day, weekday) == ("*", "*", "*"):
        return tell("cron_hourly", minute=f"{int(minute):02}")
    if not hour.isdigit():
        return text
    at = f"{int(hour):02}:{int(minute):02}"
    if (day, weekday) == ("*", "*"):
        return tell("cron_daily", at=at)
    if day == "*" and re.fullmatch(r"[0-7]|[a-z]{3}", weekday):
        number = int(weekday) % 7 if weekday.isdigit() else _DAYS.index(weekday)
        return tell("cron_weekly", at=at, day=tell(f"weekday_{_DAYS[number]}"))
    if day.isdigit() and weekday == "*":
        return tell("cron_monthly", at=at, day=int(day))
    return text


def _values(field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _bad(field, part)
        first, last, step = match.groups()
        low = field.least if first == "*" else _number(field, first, part)
        high = _number(field, last, part) if last else low
        if first == "*" or (step and not last):
            high = 6 if field.name == "weekday" else field.most
        if (first == "*" and last) or low > high or (step is not None and int(step) == 0):
            raise _bad(field, part)
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(field: _Field, text: str, part: str) -> int:
    if text.isdigit():
        number = int(text)
    elif text in field.words:
        number = field.words.index(text) + field.least
    else:
        raise _bad(field, part)
    if not field.least <= number <= field.most:
        raise _bad(field, part)
    return number


def _bad(field: _Field, part: str) -> UserError:
    key = f"cron_field_{field.name}"
    most = 6 if field.name == "weekday" else field.most
    return UserError(tell("cron_bad_field", field=tell(key), value=part[:20], least=field.least, most=most))


def _joined(values: frozenset[int]) -> str:
    return ",".join(str(value) for value in sorted(values))
