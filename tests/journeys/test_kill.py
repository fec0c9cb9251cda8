"""A killed ingestion goes on where it was, and leaves nothing half (fault 81)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kill import drill
from tests.processes import start


@pytest.mark.slow
@pytest.mark.sqlite("its file of small originals; bench kill_jobs is about PostgreSQL")
def test_what_was_killed_again_and_again_ends_as_one_clean_run(tmp_path: Path) -> None:
    """Protection: atomic puts, the live switch in SQL, and `reconcile`; `make bench ARGS=kill` does it 200 times."""
    assert drill(tmp_path, kills=4, documents=24, seed=3, begin=start)
