"""The Kvasir with a fake search and a fake engine that the tests of the bots have, too."""

from __future__ import annotations

from tests.bots.conftest import front

__all__ = ["front"]
