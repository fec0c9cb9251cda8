"""The simulation runs the real queues, and what it says follows what it is given."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from bench import simulate, virtual
from bench.capacity import Load, Means
from bench.simulate import Plan, Seen, askings

LOAD = Load(people=150_000)


def simulated(folder: Path, plan: Plan, processes: int) -> Seen:
    return virtual.run(lambda clock: simulate.simulate(clock, folder, LOAD, Means(), plan, processes))


def test_everybody_is_answered_once_and_waits_less_where_more_processes_are(tmp_path: Path) -> None:
    plan = Plan(seconds=4.0, parallel=16)
    few, many = (simulated(tmp_path, plan, processes) for processes in (1, 4))
    for seen in (few, many):
        assert len(seen.asked) > 40
        assert set(seen.answers) == set(seen.asked)
        assert set(seen.answers.values()) == {1}
    assert max(few.queues) > 10 > max(many.queues)
    assert max(few.waits(few.begun)) > 5 > max(many.waits(many.begun))


def test_quotas_are_those_of_all_processes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people ask all there is to ask, of four processes, each of which tells them once that it is enough."""
    monkeypatch.setattr(simulate, "_PEOPLE_OF_CHANNEL", 2)
    plan = Plan(seconds=2.0, channels=1, zipf=0.0, quota=5)
    asked = askings(LOAD, plan, 4)
    assert len({asking.mention.person.key for asking in asked}) == 2
    assert len({asking.to for asking in asked}) == 4
    seen = simulated(tmp_path, plan, 4)
    assert len(seen.asked) == len(asked) > 20
    assert len(seen.whole) == 5 * 2
    assert 0 < seen.refused <= 2 * 4


def test_the_same_seed_asks_the_same_and_busy_channels_are_busy() -> None:
    plan = Plan(seconds=60.0, channels=100, zipf=1.0)
    first = askings(Load(people=150_000), plan, 3)
    assert first == askings(Load(people=150_000), plan, 3)
    counts = [sum(one.mention.place.channel == f"C{number}" for one in first) for number in (0, 50)]
    assert counts[0] > 5 * counts[1]
    peak = sum(15 <= one.at < 45 for one in first)
    assert peak == pytest.approx(4.0 * (len(first) - peak) * 1.25, rel=0.5)


def test_it_prints_a_row_for_each_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)  # the command silences logs, other tests read
    simulate.main(["--processes", "1,2", "--people", "20000", "--seconds", "4"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 1", "| 2"]
    simulate.main(["--processes", "1", "--people", "20000", "--seconds", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["seconds"] == 2
    assert found["runs"][0]["processes"] == 1
