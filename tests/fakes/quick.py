"""`python -m tests.fakes.quick …` is `kvasir …` whose leases run out soon: tests need not wait for half a minute."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any


def prepare() -> None:
    """Before anything is imported that counts with what is changed here."""
    leases: Any = import_module("core.work.leases")
    leases.LEASE = timedelta(seconds=9)
    inbox: Any = import_module("bots.inbox")
    inbox.LEASE, inbox._SURE_SECONDS, inbox.BEAT_SECONDS = timedelta(seconds=4), 3.0, 1.0
    shards: Any = import_module("bots.discord.shards")
    shards._KEEP_SECONDS = 0.5


if __name__ == "__main__":
    prepare()
    import_module("core.cli.main").app()
