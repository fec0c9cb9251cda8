"""The arithmetic of capacity gives what the design was made for, and follows what it is given."""

from __future__ import annotations

import json

import pytest

from bench.capacity import Load, Means, main, needs
from tests.docs_tables import ROOT, between


def needed(load: Load, means: Means = Means()) -> dict[str, float]:  # noqa: B008  it is frozen
    return {need.name: need.value for need in needs(load, means)}


def test_a_million_people_in_ten_thousand_channels() -> None:
    found = needed(Load())
    assert found["questions, peak"] == pytest.approx(115.7, abs=0.1)
    assert found["tokens written, peak"] == pytest.approx(28_935, abs=1)
    assert 2 < found["GPUs that write"] < 3
    assert 9 < found["GPUs that read"] < 10
    assert found["vectors in memory"] == pytest.approx(76.8)
    assert found["with all copies"] == pytest.approx(230.4)
    assert found["nodes of the store"] >= 4
    assert found["database growth"] == pytest.approx(8)


def test_floats_take_four_times_the_numbers() -> None:
    assert needed(Load(), Means(number_bytes=4))["vectors in memory"] == pytest.approx(215.04)


def test_a_small_house_has_two_of_what_answers_and_a_node_for_each_copy() -> None:
    found = needed(Load(people=200, chunks=50_000, kbs=5, copies=3))
    assert found["processes that answer"] == 2
    assert found["nodes of the store"] == 3
    assert found["GPUs"] == 1


def test_it_prints_a_row_for_each_need_and_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--people", "2000", "--chunks", "1e6"])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(needs(Load(), Means()))
    assert "2,000 people x 2" in rows[2]
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["load"]["people"] == 1_000_000


@pytest.mark.skipif(not (ROOT / "docker").is_dir(), reason="the folder docker is not here")
def test_the_table_of_the_documentation_is_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    told = between((ROOT / "docker" / "README.md").read_text("utf-8"), "capacity")
    assert told == capsys.readouterr().out.strip(), "put in what `python -m bench.capacity` prints"


@pytest.mark.parametrize("value", ["0", "-3", "nan", "many", "inf"])
def test_what_is_no_quantity_is_refused(value: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--people", value])
    assert refused.value.code == 2
