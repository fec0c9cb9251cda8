"""The chat platforms as the console connects them: tokens, on or off, and how their processes say that they are.

What the settings (a variable or the file) say goes before what is kept here. Tokens are kept encrypted, and go nowhere
but to their platform.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from sqlalchemy import func, or_, select

from core.chats.platform_options import ADDRESSES, Field, Origin, cleaned, is_hidden, is_secret, kind_of, says, variable
from core.chats.reports import Report, State, reports_of, state_of, with_report
from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import ConnectionRow, InboxRow, PlatformStateRow, now
from core.errors import ConfigError, KvasirError, NotAccepted, NotFound
from core.ports import Finding
from core.settings import Section, Settings
from core.texts import tell
from core.vault import Vault

Check = Callable[[Settings], AsyncIterator[Finding]]
"""What a chat platform looks at; it changes nothing."""

WORKSPACE_KEY: Final = "workspace"
"""Of `PlatformStateRow`: the name of a workspace that has us."""
_CHECK_SECONDS: Final = 30.0

_STAMPS: Final = Statement(
    select(ConnectionRow.platform, ConnectionRow.updated_at).where(ConnectionRow.updated_by != "")
)


@dataclass(frozen=True, slots=True)
class Connection:
    platform: str
    enabled: bool
    is_kept: bool
    """Something was set here, besides what the settings say."""
    is_configured: bool
    """There is a secret at least."""
    state: State
    fields: Sequence[Field]
    reports: Sequence[Report]
    trouble: str
    """Why what is kept cannot be used; empty: it can."""
    waiting: int
    working: int
    """Questions in the inbox."""
    updated_by: str
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Workspace:
    """One that let Kvasir in, by the app's installation or by its token."""

    id: str
    name: str
    since: datetime


class Connections:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        settings: Settings,
        platforms: Callable[[], Sequence[str]],
        check: Callable[[str], Check],
    ) -> None:
        """`check` gives the check of a platform by name. Raises ConfigError."""
        self._db = db
        self._vault = vault
        self._settings = settings
        self._platforms = platforms
        self._check = check

    def platforms(self) -> Sequence[str]:
        return self._platforms()

    # ------------------------------------------------------------ what holds
    async def list(self) -> Sequence[Connection]:
        """Every platform there is, connected or not."""
        return await self._all()

    async def get(self, platform: str) -> Connection:
        """Raises NotFound."""
        self._known(platform)
        return next(one for one in await self._all() if one.platform == platform)

    async def stamps(self) -> Mapping[str, str]:
        """For each platform that something was ever set for: a text that changes when that is changed."""
        (found,) = await self._db.fetch(_STAMPS())
        return {row.platform: repr(row.updated_at) for row in found.rows}

    async def settings_of(self, platform: str) -> Settings | None:
        """All settings, with what is kept for this platform; None where it is switched off.

        Raises ConfigError where what is kept cannot be used.
        """
        return (await self.stamped(platform))[1]()

    async def stamped(self, platform: str) -> tuple[str, Callable[[], Settings | None]]:
        """The stamp as it is now, empty where nothing was ever set; and what gives the settings that belong to it, as
        `settings_of` does.
        """
        async with self._db.read() as session:
            row = await session.get(ConnectionRow, platform)

        def settings() -> Settings | None:
            if row is None:
                return self._settings
            return self._with(platform, self._secrets(row) | row.settings) if row.enabled else None

        return repr(row.updated_at) if row is not None and row.updated_by else "", settings

    async def workspaces(self, platform: str) -> Sequence[Workspace]:
        """Those that let us in, as far as the platform remembers them."""
        self._known(platform)
        query = (
            select(PlatformStateRow)
            .filter_by(platform=platform, key=WORKSPACE_KEY)
            .order_by(PlatformStateRow.value, PlatformStateRow.workspace)
        )
        async with self._db.read() as session:
            rows = (await session.scalars(query)).all()
        return [Workspace(row.workspace, row.value, row.updated_at) for row in rows]

    # ------------------------------------------------------------ changes
    async def examine(self, platform: str, values: Mapping[str, Any] | None = None) -> Sequence[Finding]:
        """What the platform's check finds, with these values in the place of those kept; nothing is changed.

        Raises NotAccepted where a value cannot be.
        """
        self._known(platform)
        async with self._db.read() as session:
            row = await session.get(ConnectionRow, platform)
        kept = self._changed(platform, row, values or {})
        return await self._findings(platform, self._with(platform, kept))

    async def change(
        self,
        platform: str,
        by: str,
        values: Mapping[str, Any],
        *,
        enabled: bool | None = None,
        unchecked: bool = False,
    ) -> Sequence[Finding]:
        """Keep values for fields of the platform's settings (None sets one back) and switch it on or off.

        They are tried first unless `unchecked`, and what was found is given; nothing is kept where a field is wrong.
        Raises NotAccepted with a sentence for each such field.
        """
        self._known(platform)
        async with self._db.read() as session:
            row = await session.get(ConnectionRow, platform)
        kept = self._changed(platform, row, values)
        settings = self._with(platform, kept)
        findings: Sequence[Finding] = ()
        is_on = enabled if enabled is not None else row is None or row.enabled
        if values and is_on and not unchecked and self._is_configured(platform, settings):
            findings = await self._findings(platform, settings)
            wrong = {one.field: one.says for one in findings if not one.ok and one.field}
            if wrong:
                raise NotAccepted(next(iter(wrong.values())), wrong)
        await self._keep(platform, by, values, enabled)
        return findings

    async def restart(self, platform: str, by: str) -> None:
        """Have its processes begin anew, e.g. after something was put right at the platform."""
        self._known(platform)
        await self._keep(platform, by, {}, None)

    async def remove(self, platform: str, by: str) -> bool:
        """Forget what was set here, its tokens with it; whether there was anything. What the settings say stays."""
        self._known(platform)
        async with self._db.session() as session:
            row = await session.get(ConnectionRow, platform, with_for_update=True)
            if row is None or not row.updated_by:
                return False
            had = bool(row.settings or row.secrets or not row.enabled)
            row.settings, row.secrets, row.enabled = {}, "", True
            row.updated_by, row.updated_at = by, now()
        return had

    # ------------------------------------------------------------ what processes say
    async def report(self, platform: str, said: Report) -> None:
        """Keep what a process says of a platform."""
        async with self._db.session() as session:
            row = await session.get(ConnectionRow, platform, with_for_update=True)
            if row is None:
                new = self._db.insert(ConnectionRow).values(
                    platform=platform, enabled=True, settings={}, secrets="", status={}
                )
                await session.execute(new.on_conflict_do_nothing())
                row = await session.get_one(ConnectionRow, platform, with_for_update=True)
            row.status = with_report(row.status, said)

    # ------------------------------------------------------------ inside
    async def _all(self) -> Sequence[Connection]:
        counts = (
            select(InboxRow.platform, InboxRow.state, func.count())
            .where(or_(InboxRow.state == "waiting", InboxRow.state == "working"))
            .group_by(InboxRow.platform, InboxRow.state)
        )
        async with self._db.read() as session:
            rows = {row.platform: row for row in await session.scalars(select(ConnectionRow))}
            counted = {(platform, state): count for platform, state, count in await session.execute(counts)}
        return [self._connection(name, rows.get(name), counted) for name in self._platforms()]

    def _connection(self, platform: str, row: ConnectionRow | None, counted: Mapping[Any, int]) -> Connection:
        kept, trouble, settings = {}, "", self._settings
        enabled = row is None or row.enabled
        try:
            if row is not None:
                kept = self._secrets(row) | row.settings
                settings = self._with(platform, kept)
        except KvasirError as error:
            trouble = str(error)
        reports = reports_of(row.status if row else {})
        changed_at = row.updated_at if row and row.updated_by else None
        configured = bool(trouble) or self._is_configured(platform, settings)
        return Connection(
            platform=platform,
            enabled=enabled,
            is_kept=bool(row and (row.settings or row.secrets)),
            is_configured=configured,
            state="refused" if trouble else state_of(enabled, configured, reports, changed_at),
            fields=self._fields(platform, settings, kept),
            reports=reports,
            trouble=trouble,
            waiting=counted.get((platform, "waiting"), 0),
            working=counted.get((platform, "working"), 0),
            updated_by=row.updated_by if row else "",
            updated_at=changed_at,
        )

    def _known(self, platform: str) -> None:
        there = self._platforms()
        if platform not in there:
            raise NotFound(tell("channel_no_platform", name=platform[:40], there=", ".join(there)))

    def _section(self, platform: str) -> Section | None:
        """What the settings say of it; None where they know nothing of such a platform."""
        found = getattr(self._settings, platform, None)
        return found if isinstance(found, Section) else None

    def _said(self, platform: str) -> dict[str, Any]:
        """The fields that the settings set."""
        section = self._section(platform)
        if section is None:
            return {}
        return {name: value for name in section.model_fields_set if says(value := getattr(section, name))}

    def _with(self, platform: str, kept: Mapping[str, Any]) -> Settings:
        """The settings with these values behind what they say themselves. Raises NotAccepted."""
        section = self._section(platform)
        if section is None:
            return self._settings
        known = {name: value for name, value in kept.items() if name in type(section).model_fields}
        try:
            made = type(section)(**known | self._said(platform))
        except ValidationError as error:
            wrong = {str(one["loc"][0]): str(one["msg"]) for one in error.errors() if one["loc"]}
            raise NotAccepted("; ".join(f"{name}: {why}" for name, why in wrong.items()), wrong) from None
        return self._settings.model_copy(update={platform: made})

    def _changed(self, platform: str, row: ConnectionRow | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """What would be kept after these changes, secrets among it. Raises NotAccepted."""
        section = self._section(platform)
        fields = type(section).model_fields if section else {}
        said = self._said(platform)
        kept: dict[str, Any] = (self._secrets(row) | row.settings) if row else {}
        after = dict(kept)
        for name, value in values.items():
            if name not in fields:
                raise NotAccepted(tell("connection_no_field", name=name[:40]), {name[:40]: tell("no_such_field")})
            if name in said:
                says = tell("connection_by_settings", variable=variable(platform, name))
                raise NotAccepted(says, {name: says})
            value = cleaned(name, value)
            after.pop(name, None)
            if value is not None:
                after[name] = value
        self._check_addresses(platform, kept, after, values)
        return after

    def _check_addresses(
        self, platform: str, before: Mapping[str, Any], after: Mapping[str, Any], given: Mapping[str, Any]
    ) -> None:
        """Kept tokens go to no other address than that for which they were given: whoever changes it must know them."""
        moved = [name for name in ADDRESSES if before.get(name) != after.get(name)]
        said = self._said(platform)
        section = self._section(platform)
        if not moved or section is None:
            return
        secrets = [name for name in type(section).model_fields if is_secret(type(section), name)]
        unknown = [name for name in secrets if name in said or (name in after and given.get(name) is None)]
        if unknown:
            says = tell("connection_secrets_again", fields=", ".join(unknown))
            raise NotAccepted(says, {moved[0]: says})

    async def _keep(self, platform: str, by: str, values: Mapping[str, Any], enabled: bool | None) -> None:
        async with self._db.session() as session:
            new = self._db.insert(ConnectionRow).values(
                platform=platform, enabled=True, settings={}, secrets="", status={}
            )
            await session.execute(new.on_conflict_do_nothing())
            row = await session.get_one(ConnectionRow, platform, with_for_update=True)
            after = self._changed(platform, row, values)
            section = self._section(platform)
            hidden = {name for name in after if section is not None and is_hidden(type(section), name)}
            row.settings = {name: value for name, value in after.items() if name not in hidden}
            secrets = {name: after[name] for name in sorted(hidden)}
            row.secrets = self._vault.encrypt(json.dumps(secrets)) if secrets else ""
            row.enabled = row.enabled if enabled is None else enabled
            row.updated_by, row.updated_at = by or "-", now()

    def _secrets(self, row: ConnectionRow) -> dict[str, Any]:
        """Raises ConfigError where they were encrypted with another key."""
        found: dict[str, Any] = json.loads(self._vault.decrypt(row.secrets)) if row.secrets else {}
        return found

    def _is_configured(self, platform: str, settings: Settings) -> bool:
        section = getattr(settings, platform, None)
        if not isinstance(section, Section):
            return True
        return any(
            is_secret(type(section), name) and says(getattr(section, name)) for name in type(section).model_fields
        )

    def _fields(self, platform: str, settings: Settings, kept: Mapping[str, Any]) -> Sequence[Field]:
        section = getattr(settings, platform, None)
        if not isinstance(section, Section):
            return ()
        said = self._said(platform)
        found = []
        for name, field in type(section).model_fields.items():
            hidden = is_hidden(type(section), name)
            value = getattr(section, name)
            origin: Origin = "settings" if name in said else "console" if name in kept else ""
            default = None if field.default is PydanticUndefined or hidden else field.default
            found.append(
                Field(
                    name=name,
                    kind=kind_of(type(section), name),
                    description=field.description or "",
                    default=default,
                    value=None if hidden else value,
                    origin=origin,
                    variable=variable(platform, name),
                )
            )
        return found

    async def _findings(self, platform: str, settings: Settings) -> Sequence[Finding]:
        found: list[Finding] = []
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                # In a thread: it may import a client library, which takes seconds.
                check = await asyncio.to_thread(self._check, platform)
                found += [finding async for finding in check(settings)]
        except ConfigError as error:
            found.append(Finding(platform, False, str(error), "*"))
        except TimeoutError:
            found.append(Finding(platform, False, tell("doctor_slow", seconds=int(_CHECK_SECONDS)), "*"))
        return found
