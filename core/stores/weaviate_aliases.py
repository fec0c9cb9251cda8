"""The live index of each knowledge base as an alias on the server, for whoever looks at it with other tools.

What counts is the row in Kvasir's database; an alias names the collection, and in it the index is a tenant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from core.settings import WeaviateSettings
from core.stores.weaviate_schema import chunks_name
from core.types import Generation

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient


def aliases_of(settings: WeaviateSettings, live: Sequence[Generation]) -> Mapping[str, str]:
    """The collection of each alias that there is to be."""
    return {f"{_start(settings)}{one.kb_id}": chunks_name(settings, one) for one in live}


async def mirror(client: WeaviateAsyncClient, settings: WeaviateSettings, wanted: Mapping[str, str]) -> None:
    """Make, change and delete aliases of ours until they are those; another process may be doing the same."""
    from weaviate.exceptions import UnexpectedStatusCodeError

    every = await client.alias.list_all()
    there = {name: found.collection for name, found in every.items() if name.startswith(_start(settings))}
    for name in there.keys() - wanted.keys():
        await client.alias.delete(alias_name=name)
    for name, collection in wanted.items():
        if name not in there:
            with suppress(UnexpectedStatusCodeError):  # somebody was quicker, or the collection is just being dropped
                await client.alias.create(alias_name=name, target_collection=collection)
        elif there[name] != collection:
            await client.alias.update(alias_name=name, new_target_collection=collection)


async def release(client: WeaviateAsyncClient, settings: WeaviateSettings, collection: str) -> bool:
    """Delete our aliases of a collection that has no index any more; False where somebody else's names it."""
    names = list(await client.alias.list_all(collection=collection))
    if any(not name.startswith(_start(settings)) for name in names):
        return False
    for name in names:
        await client.alias.delete(alias_name=name)
    return True


def _start(settings: WeaviateSettings) -> str:
    return f"{settings.prefix}_Live_"
