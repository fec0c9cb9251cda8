"""`python -m tests.fakes.quick …` is `kvasir …` whose leases run out soon: tests need not wait for half a minute."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any


def main() -> None:
    leases: Any = import_module("core.work.leases")
    leases.LEASE = timedelta(seconds=9)  # before anything is imported that counts with it
    inbox: Any = import_module("bots.inbox")
    inbox.LEASE, inbox._SURE_SECONDS, inbox.BEAT_SECONDS = timedelta(seconds=4), 3.0, 1.0
    shards: Any = import_module("bots.discord.shards")
    shards._KEEP_SECONDS = 0.5
    import_module("core.cli.main").app()


if __name__ == "__main__":
    main()
