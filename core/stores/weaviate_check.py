"""`kvasir doctor weaviate`: whether the server can be used, in one sentence each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from core.errors import KvasirError
from core.ports import Finding
from core.settings import Settings
from core.stores.weaviate_server import Absent, Server
from core.texts import tell

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is written or changed."""
    what = tell("weaviate_check_server")
    try:
        server = Server(settings.weaviate)
    except KvasirError as error:
        yield Finding(what, False, str(error), "url")
        return
    try:
        yield Finding(what, True, tell("weaviate_check_version", url=server.address, version=await server.version()))
        async for finding in _inside(server, settings):
            yield finding
    except KvasirError as error:
        yield Finding(what, False, str(error), "*")
    finally:
        await server.close()


async def _inside(server: Server, settings: Settings) -> AsyncIterator[Finding]:
    used = settings.store.kind == "weaviate"
    yield Finding(tell("weaviate_check_use"), True, tell("weaviate_check_used" if used else "weaviate_check_unused"))
    seconds, prefix = settings.weaviate.search_seconds, f"{settings.weaviate.prefix}_"
    found = await server.call(lambda client: _collections(client, prefix), seconds)
    what = tell("weaviate_check_grpc")
    try:
        await server.call(lambda client: _ask(client, f"{prefix}Nothing"), seconds)
    except Absent:  # it has answered
        yield Finding(what, True, tell("weaviate_check_grpc_good", address=server.grpc_address))
    except KvasirError as error:
        yield Finding(what, False, str(error), "grpc_url")
    nodes = await server.call(_nodes, seconds)
    lost = [node.name for node in nodes if node.status != "HEALTHY"]
    says = (
        tell("weaviate_check_lost", names=", ".join(lost))
        if lost
        else tell("weaviate_check_nodes_good", count=len(nodes))
    )
    yield Finding(tell("weaviate_check_nodes"), not lost, says)
    yield _copies(settings.weaviate.replication_factor, len(nodes), found)
    indexes = max((tenants for _, tenants in found.values()), default=0)
    yield Finding(
        tell("weaviate_check_made"), True, tell("weaviate_check_counted", collections=len(found), indexes=indexes)
    )


def _copies(wanted: int, nodes: int, found: dict[str, tuple[int, int]]) -> Finding:
    what = tell("weaviate_check_copies")
    if wanted > nodes:
        return Finding(what, False, tell("weaviate_check_too_many", wanted=wanted, nodes=nodes), "replication_factor")
    other = {name: factor for name, (factor, _) in found.items() if factor != wanted}
    if other:
        names = ", ".join(f"{name}: {factor}" for name, factor in other.items())
        return Finding(what, True, tell("weaviate_check_other_copies", wanted=wanted, names=names))
    return Finding(what, True, tell("weaviate_check_copies_good", wanted=wanted))


async def _collections(client: WeaviateAsyncClient, prefix: str) -> dict[str, tuple[int, int]]:
    """By name: how many copies there are, and how many tenants."""
    every = await client.collections.list_all(simple=False)
    return {
        name: (config.replication_config.factor, len(await client.collections.use(name).tenants.get()))
        for name, config in every.items()
        if name.startswith(prefix)
    }


async def _nodes(client: WeaviateAsyncClient) -> list[Any]:
    return list(await client.cluster.nodes())


async def _ask(client: WeaviateAsyncClient, name: str) -> None:
    await client.collections.use(name).query.fetch_objects(limit=1)
