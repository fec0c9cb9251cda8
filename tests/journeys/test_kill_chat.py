"""Questions in flight when `kvasir up bots` is killed are answered once by the next process (faults 82, 83 and 85)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from bench.kill_chat import drill
from tests.fakes.chats import LATE
from tests.processes import start

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_each_question_has_one_answer_whenever_the_bots_are_killed(tmp_path: Path) -> None:
    """`make bench ARGS=kill_chat` does it 200 times."""
    assert await drill(tmp_path, kills=2, seed=7, longest_life=2.0, begin=partial(start, imports=LATE))
