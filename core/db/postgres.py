"""One address of a PostgreSQL for both drivers: SQLAlchemy's form, its options by libpq's or asyncpg's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import URL

_BY_DSN: Final = frozenset(
    (
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "passfile", "krbsrvname"),
        *("service", "servicefile"),
    )
)
"""What asyncpg understands in an address, and not as an argument."""
_OF_ASYNCPG: Final = frozenset(
    (
        *("prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size"),
        *("max_cached_statement_lifetime", "max_cacheable_statement_size", "command_timeout", "direct_tls"),
    )
)
"""What libpq does not know."""
_LIVENESS: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
_CONNECT_SECONDS: Final = 10


def for_asyncpg(url: URL, settings: Mapping[str, str]) -> tuple[URL, dict[str, Any]]:
    """The address without what asyncpg takes otherwise, and that as arguments of its `connect`.

    `settings` are those of the server for each connection, e.g. `statement_timeout`.
    """
    by_dsn = {name: _one(value) for name, value in url.query.items() if name in _BY_DSN}
    given: dict[str, Any] = {"timeout": _CONNECT_SECONDS}
    if by_dsn:
        given["dsn"] = f"postgresql://?{urlencode(by_dsn)}"
    if "connect_timeout" in url.query:
        given["timeout"] = float(_one(url.query["connect_timeout"]))
    name = _one(url.query.get("application_name", "kvasir"))
    given["server_settings"] = {"application_name": name, **settings}
    return url.difference_update_query([*by_dsn, "connect_timeout", "application_name"]), given


def for_psycopg(url: URL) -> str:
    """The same as a line of libpq."""
    from psycopg.conninfo import make_conninfo  # late: it is there only with the extra `postgres`

    found: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "kvasir jobs", **_LIVENESS}
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    found |= {name: value for name, value in parts.items() if value is not None}
    for name, value in url.query.items():
        match name:
            case "host":
                found |= _hosts(value)
            case "ssl":
                found["sslmode"] = {"true": "require", "false": "disable"}.get(_one(value).lower(), _one(value))
            case "timeout":
                found["connect_timeout"] = max(2, round(float(_one(value))))
            case _ if name not in _OF_ASYNCPG:
                found[name] = _one(value)
    return make_conninfo(**found)


def _hosts(value: str | tuple[str, ...]) -> dict[str, str]:
    """Folders of sockets, and servers with or without their ports, as SQLAlchemy writes several."""
    hosts = [host for one in ((value,) if isinstance(value, str) else value) for host in one.split(",")]
    pairs = [(host, "") if host.startswith("/") else host.partition(":")[::2] for host in hosts]
    found = {"host": ",".join(host for host, _ in pairs)}
    if any(port for _, port in pairs):
        found["port"] = ",".join(port or "5432" for _, port in pairs)
    return found


def _one(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[-1]
