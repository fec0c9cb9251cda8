"""What a platform must remember over restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from core.db.session import Database
from core.db.tables import PlatformStateRow, new_id, now

if TYPE_CHECKING:
    from core.vault import Vault


class Memory:
    """Texts by (workspace, key) of one platform; secrets are kept encrypted."""

    def __init__(self, db: Database, vault: Vault, platform: str) -> None:
        self._db = db
        self._vault = vault
        self._platform = platform

    async def get(self, key: str, workspace: str = "") -> str | None:
        async with self._db.read() as session:
            value: str | None = await session.scalar(
                select(PlatformStateRow.value).filter_by(platform=self._platform, workspace=workspace, key=key)
            )
            return value

    async def all(self, key: str) -> Mapping[str, str]:
        """The value of each workspace that has one."""
        async with self._db.read() as session:
            rows = await session.execute(
                select(PlatformStateRow.workspace, PlatformStateRow.value).filter_by(platform=self._platform, key=key)
            )
            return {row.workspace: row.value for row in rows}

    async def put(self, key: str, value: str, workspace: str = "") -> None:
        row = {
            "id": new_id(),
            "platform": self._platform,
            "workspace": workspace,
            "key": key,
            "value": value,
            "updated_at": now(),
        }
        async with self._db.session() as session:
            await session.execute(
                self._db.insert(PlatformStateRow)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["platform", "workspace", "key"], set_={"value": value, "updated_at": now()}
                )
            )

    async def settle(self, key: str, value: str, workspace: str = "") -> str:
        """What is kept; `value`, where nothing was. All processes get the same."""
        row = {"id": new_id(), "platform": self._platform, "workspace": workspace, "key": key, "value": value}
        async with self._db.session() as session:
            new = self._db.insert(PlatformStateRow).values({**row, "updated_at": now()})
            await session.execute(new.on_conflict_do_nothing(index_elements=["platform", "workspace", "key"]))
        return await self.get(key, workspace) or value

    async def settle_secret(self, key: str, value: str, workspace: str = "") -> str:
        """As `settle`. Raises ConfigError where what is kept was encrypted with another key."""
        return self._vault.decrypt(await self.settle(key, self._vault.encrypt(value), workspace))

    async def forget(self, key: str, workspace: str = "") -> None:
        async with self._db.session() as session:
            await session.execute(
                delete(PlatformStateRow).filter_by(platform=self._platform, workspace=workspace, key=key)
            )

    async def get_secret(self, key: str, workspace: str = "") -> str | None:
        """Raises ConfigError where it was encrypted with another key."""
        kept = await self.get(key, workspace)
        return self._vault.decrypt(kept) if kept is not None else None

    async def put_secret(self, key: str, value: str, workspace: str = "") -> None:
        await self.put(key, self._vault.encrypt(value), workspace)
