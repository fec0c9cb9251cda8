"""`python -m tests.fakes.quick …` is `kvasir …` whose leases run out soon: tests need not wait for half a minute."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any, Final

_SHARE: Final = 0.3
_LEASED: Final = {
    "core.work.leases": ("LEASE",),
    "core.work.presence": ("LEASE", "BEAT_SECONDS", "ALIVE"),
    "core.work.folder": ("LEASE", "_BEAT"),
    "bots.leasing": ("LEASE", "RENEW_SECONDS", "TRY_SECONDS", "_SURE_SECONDS"),
}
"""All that is counted from a lease, where it is kept."""


def main() -> None:
    for name, constants in _LEASED.items():
        module: Any = import_module(name)
        for constant in constants:
            setattr(module, constant, getattr(module, constant) * _SHARE)
    inbox: Any = import_module("bots.inbox")
    inbox.LEASE, inbox._SURE_SECONDS = timedelta(seconds=4), 3.0
    runner: Any = import_module("bots.runner")
    runner.BEAT_SECONDS = inbox.BEAT_SECONDS = 1.0
    shards: Any = import_module("bots.discord.shards")
    shards._KEEP_SECONDS = 0.5
    import_module("core.cli.main").app()


if __name__ == "__main__":
    main()
