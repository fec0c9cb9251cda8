"""`python -m tests.fakes.quick …` is `kvasir …` whose leases run out soon: tests need not wait for half a minute."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import bots.inbox
import core.leases


def main() -> None:
    leases: Any = core.leases
    inbox: Any = bots.inbox
    leases.LEASE = timedelta(seconds=6)  # before anything is imported that counts with it
    inbox.LEASE, inbox._SURE_SECONDS, inbox.BEAT_SECONDS = timedelta(seconds=4), 3.0, 1.0
    from core.cli.main import app

    app()


if __name__ == "__main__":
    main()
