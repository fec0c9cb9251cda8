"""`kvasir worker`: a model on this machine, for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core import registry
from core.cli.common import model_bar, run, set_up_logging, told
from core.errors import ConfigError, EngineUnavailable
from core.texts import spoken, tell

if TYPE_CHECKING:
    from core.inference.sections import Kind
    from core.serving.driver import Card
    from core.settings import Settings


def worker(
    kind: Annotated[str, typer.Option("--kind", help="What runs the model, e.g. llamacpp; its settings are used.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Its port; 0 takes a free one.")] = 8420,
) -> None:
    """Run a model for other machines, over OpenAI's API, until Ctrl+C."""

    async def work(settings: Settings) -> None:
        from core.serving.plan import plan_of
        from core.serving.public import public_worker

        of, adapter = _kind_of(kind)
        plan = plan_of(settings, of, adapter, driver=kind)
        key = settings.worker.api_key.get_secret_value()
        with model_bar() as follow:
            context = public_worker(plan, host, port, key, follow)
            supervisor, url = await context.__aenter__()
        try:
            set_up_logging(settings)
            if supervisor.card is not None:
                _say(supervisor.card, url, kind)
            trouble = await supervisor.over()
        finally:
            await context.__aexit__(None, None, None)
        if trouble is not None:
            raise EngineUnavailable(trouble.say(spoken()))
        told("worker_unloaded")

    run(work)


def _kind_of(driver: str) -> tuple[Kind, str]:
    """What a worker of that name is, and the adapter whose settings it has. Raises ConfigError where there is none."""
    drivers = registry.names("kvasir.drivers")
    kinds: tuple[Kind, ...] = ("engine", "embedder", "reranker")
    found: dict[str, tuple[Kind, str]] = {}
    for kind in kinds:
        for adapter in registry.names(f"kvasir.{kind}s"):
            for name in (adapter, f"{adapter}-{kind}"):
                if name in drivers:
                    found.setdefault(name, (kind, adapter))
    if driver not in found:
        raise ConfigError(tell("worker_kinds", kind=driver, kinds=", ".join(sorted(found))))
    return found[driver]


def _say(card: Card, url: str, kind: str) -> None:
    if card.dimension:
        told("worker_has_vectors", model=card.model, url=f"{url}/v1", dimension=card.dimension)
    else:
        told("worker_serves", model=card.model, url=f"{url}/v1", parallel=card.parallel, kind=kind)
