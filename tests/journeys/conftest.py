"""The browser that all journeys of a process share ends with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.browsing import end_chromium


@pytest.fixture(scope="session", autouse=True)
def _no_browser_is_left() -> Iterator[None]:
    yield
    end_chromium()
