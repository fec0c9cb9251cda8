"""Times that come again and again, as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from core import cron
from core.errors import UserError
from core.texts import speaking

MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "first"),
    [
        ("*/15 * * * *", "UTC", "2026-11-23T12:15"),
        ("daily", "UTC", "2026-11-24T03:00"),
        ("0 3 * * *", "Asia/Shanghai", "2026-11-23T19:00"),
        ("30 9 * * 1-5", "Europe/Berlin", "2026-11-24T08:30"),
        ("0 0 * * 0", "UTC", "2026-11-29T00:00"),
        ("0 0 * * 7", "UTC", "2026-11-29T00:00"),
        ("0 0 * * 5-7", "UTC", "2026-11-27T00:00"),
        ("0 0 * * mon", "UTC", "2026-11-30T00:00"),
        ("0 0 29 2 *", "UTC", "2028-02-29T00:00"),
        ("0 0 1 jan,jul *", "UTC", "2027-01-01T00:00"),
        ("5/20 8 * * *", "UTC", "2026-11-24T08:05"),
    ],
)
def test_a_time_means_what_cron_means_by_it(text: str, zone: str, first: str) -> None:
    """Sunday is 0 and 7, as everywhere but in the library that wakes us."""
    found = cron.parse(text, zone).next(MONDAY)
    assert found == datetime.fromisoformat(f"{first}+00:00")


def test_a_day_and_a_weekday_are_either() -> None:
    found = cron.parse("0 0 1 * fri").upcoming(MONDAY, 3)
    assert [f"{at:%m-%d}" for at in found] == ["11-27", "12-01", "12-04"]


@pytest.mark.parametrize(
    ("text", "zone", "said"),
    [
        ("0 3 * *", "UTC", "five fields"),
        ("", "UTC", "there are 0"),
        ("60 * * * *", "UTC", "Minute: «60»"),
        ("0 24 * * *", "UTC", "Hour: «24»"),
        ("0 0 0 * *", "UTC", "Day of the month: «0»"),
        ("0 0 * 13 *", "UTC", "Month: «13»"),
        ("0 0 * * 8", "UTC", "Weekday: «8»"),
        ("0 0 * * monday", "UTC", "Weekday: «monday»"),
        ("*/0 * * * *", "UTC", "Minute: «*/0»"),
        ("5-1 * * * *", "UTC", "Minute: «5-1»"),
        ("*-5 * * * *", "UTC", "Minute: «*-5»"),
        ("0 0 30 2 *", "UTC", "no such day"),
        ("0 0 * * *", "Mars/Olympus", "no time zone «Mars/Olympus»"),
        ("0 0 * * *", "../../etc/passwd", "no time zone"),
        ("0 0 * * *", "Europe", "no time zone"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(text: str, zone: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*")):
        cron.parse(text, zone)


def test_an_hour_that_clocks_leave_out_or_repeat_is_once_a_day() -> None:
    spring = cron.parse("30 2 * * *", "Europe/Berlin").upcoming(datetime(2026, 3, 27, 12, tzinfo=UTC), 3)
    assert len({at.date() for at in spring}) == 3
    autumn = cron.parse("30 2 * * *", "Europe/Berlin").upcoming(datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert [f"{at:%d %H:%M}" for at in autumn] == ["25 00:30", "26 01:30"]


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        ("*/10 * * * *", "every 10 minutes", "每 10 分钟"),
        ("5 * * * *", "every hour at minute 05", "每小时的第 05 分"),
        ("0 3 * * *", "every day at 03:00", "每天 03:00"),
        ("30 8 * * 1", "every Monday at 08:30", "每周一 08:30"),
        ("30 8 * * sun", "every Sunday at 08:30", "每周日 08:30"),
        ("0 3 1 * *", "on day 1 of every month at 03:00", "每月 1 日 03:00"),
        ("0 3 1 1 *", "0 3 1 1 *", "0 3 1 1 *"),
    ],
)
def test_times_in_words(text: str, english: str, chinese: str) -> None:
    with speaking("en"):
        assert cron.in_words(text) == english
    with speaking("zh"):
        assert cron.in_words(text) == chinese
