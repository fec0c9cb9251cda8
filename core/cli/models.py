"""`kvasir model …`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli.common import (
    AsJson,
    Yes,
    confirm,
    fail,
    opened,
    out,
    plain,
    print_json,
    print_table,
    progress_bar,
    run,
    told,
)
from core.errors import UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.inference.sections import FormField, Kind
    from core.inference.tending import Tended
    from core.settings import Settings

model = typer.Typer(no_args_is_help=True, help="Engines that write answers, embedders, and rerankers.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As «kvasir model list» shows it.")]
OfKind = Annotated[
    Literal["engine", "embedder", "reranker"], typer.Option("--kind", help="What it is; engines write answers.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A setting, e.g. base_url=http://127.0.0.1:11434/v1."),
]
KeyFromStdin = Annotated[bool, typer.Option("--key-stdin", help="Read the server's key from stdin.")]


@model.command("list")
def model_list(as_json: AsJson = False) -> None:
    """All models, those that are used where none is named first."""

    async def work(settings: Settings) -> None:
        from core.inference import tending

        async with opened(settings) as kvasir:
            found = await tending.look(kvasir)
        if as_json:
            print_json({"models": [_json(one) for one in found]})
            return
        rows = [
            (
                one.model.kind,
                one.model.name,
                one.model.adapter,
                tell("model_default_mark") if one.model.is_default else "",
                tell("model_off_mark") if not one.model.enabled else "",
                one.runs,
                one.where,
                ", ".join(one.used_by),
            )
            for one in found
        ]
        print_table(("kind", "name", "adapter", "", "", "model", "server", "used by"), rows)

    run(work)


@model.command("known")
def model_known(
    kind: Annotated[Literal["embedder", "reranker"], typer.Option("--kind", help="What to list.")] = "embedder",
    as_json: AsJson = False,
) -> None:
    """Well-known embedders or rerankers, and what runs them; «model add --preset» takes their names."""
    from core.known import KNOWN, RERANKERS

    if kind == "reranker":
        columns = ["name", "model", "languages", "tokens", "adapters"]
        found: list[dict[str, Any]] = [
            dict(zip(columns, (one.name, one.repository, one.languages, one.max_tokens, one.adapters), strict=True))
            for one in RERANKERS
        ]
    else:
        columns = ["name", "model", "languages", "numbers", "tokens", "pooling", "adapters"]
        found = [
            {
                "name": one.name,
                "model": one.repository,
                "languages": one.languages,
                "numbers": one.dimension,
                "tokens": one.max_tokens,
                "pooling": one.pooling,
                "adapters": one.adapters,
                "query_prefix": one.query_prefix,
                "document_prefix": one.document_prefix,
            }
            for one in KNOWN
        ]
    if as_json:
        print_json({"models": found})
        return
    rows = [(*(one[column] for column in columns[:-1]), ", ".join(one["adapters"])) for one in found]
    print_table(columns, rows)


@model.command("add")
def model_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of your choice.")],
    adapter: Annotated[str, typer.Option("--adapter", help="What runs it, e.g. openai.")] = "openai",
    kind: OfKind = "engine",
    preset: Annotated[str, typer.Option("--preset", help="A well-known server, e.g. ollama, dashscope.")] = "",
    given: Set = None,
    key_stdin: KeyFromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Add a model, with its settings; its key is encrypted."""
    secrets = {"api_key": sys.stdin.readline().strip()} if key_stdin else {}

    async def work(settings: Settings) -> None:
        from core.inference import tending

        async with opened(settings) as kvasir:
            values = _preset(kvasir, kind, adapter, preset) | _values(
                kvasir.adapters.fields(kind, adapter), given or []
            )
            made = await kvasir.models.add(kind, name, adapter, values, secrets)
            found = await tending.look_at(kvasir, kind, made.name)
        if as_json:
            print_json({"model": _json(found)})
        else:
            told("model_was_added", name=made.name)

    run(work)


@model.command("set")
def model_set(name: Name, given: Set = None, key_stdin: KeyFromStdin = False) -> None:
    """Change the settings of a model that was added; an empty value means the default."""
    secrets = {"api_key": sys.stdin.readline().strip()} if key_stdin else {}

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            one = _added(kvasir, name)
            values = _values(kvasir.adapters.fields(one.kind, one.adapter), given or [])
            await kvasir.models.change(name, values, secrets)
        told("model_was_changed", name=name)

    run(work)


@model.command("load")
def model_load(name: Name) -> None:
    """Switch a model on; a running Kvasir loads it within a few seconds."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            await kvasir.models.enable(name, True)
        told("model_was_loaded", name=name)

    run(work)


@model.command("unload")
def model_unload(name: Name) -> None:
    """Switch a model off; a running Kvasir closes it when its last answer has ended."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            await kvasir.models.enable(name, False)
        told("model_was_unloaded", name=name)

    run(work)


@model.command("use")
def model_use(name: Name, kind: OfKind = "engine") -> None:
    """Make a model the one that is used where none is named."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            await kvasir.models.use(kind, name)
        told("model_is_used_now", name=name)

    run(work)


@model.command("test")
def model_test(name: Name, kind: OfKind = "engine", as_json: AsJson = False) -> None:
    """Put a real question to a model, or real texts; status 1 where it fails."""

    async def work(settings: Settings) -> None:
        from core.inference import tending

        async with opened(settings) as kvasir:
            tried = await tending.test(kvasir, kind, name)
        if as_json:
            print_json(
                {
                    "ok": tried.ok,
                    "error": tried.error or None,
                    "first_ms": tried.first_ms,
                    "total_ms": tried.total_ms,
                    "text": tried.text,
                    **tried.details,
                }
            )
        elif tried.ok:
            out.print(plain(tried.text or tell("model_vector_test", **tried.details)))
            told("model_took", seconds=f"{tried.total_ms / 1000:.2f}")
        if not tried.ok:
            if as_json:
                raise typer.Exit(1)
            fail(tried.error)

    run(work)


@model.command("remove")
def model_remove(name: Name, yes: Yes = False) -> None:
    """Forget a model that was added, with its key."""
    confirm(tell("model_remove_question", name=name), yes)

    async def work(settings: Settings) -> None:
        from core.inference import tending

        async with opened(settings) as kvasir:
            await tending.remove(kvasir, _added(kvasir, name).kind, name)
        told("model_was_removed", name=name)

    run(work)


@model.command("convert")
def model_convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of a model as it was published.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to be made.")],
    quantization: Annotated[
        Literal["int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"],
        typer.Option("--quantization", help="How weights are kept; int8 suits a CPU. AWQ stays as it is."),
    ] = "int8",
    python: Annotated[
        str, typer.Option("--python", help="Python of an environment that has torch, transformers and ctranslate2.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a model for the engine ctranslate2 out of a published one (safetensors)."""

    async def work(_: Settings) -> None:
        from core.serving.convert import convert, look_at

        found = await asyncio.to_thread(look_at, source)
        with progress_bar() as bar:
            task = bar.add_task("", total=1.0)

            def follow(stage: str, done: int, total: int) -> None:
                bar.update(task, description=tell(f"convert_stage_{stage}"), completed=done, total=max(total, done, 1))

            made = await convert(found, target, quantization=quantization, python=python, progress=follow)
        if as_json:
            values = {"folder": str(made.folder), "bytes": made.weights, "quantization": made.quantization}
            print_json({**values, "needs_cuda": made.needs_cuda, "alike": made.alike})
            return
        size, alike = f"{made.weights / (1 << 30):.2f}", f"{made.alike:.3f}" if made.alike else "?"
        told("convert_done", folder=made.folder, size=size, quantization=made.quantization, alike=alike)
        name = made.folder.name
        for line in (f"add {name} --adapter ctranslate2 --set model_path={made.folder}", f"test {name}", f"use {name}"):
            out.print(plain(f"  kvasir model {line}"))
        if made.needs_cuda:
            told("convert_cuda")

    run(work)


def _added(kvasir: Kvasir, name: str) -> Any:
    for one in kvasir.models.all():
        if one.is_added and one.name == name:
            return one
    raise UserError(tell("model_not_added", name=name))


def _preset(kvasir: Kvasir, kind: Kind, adapter: str, name: str) -> dict[str, Any]:
    if not name:
        return {}
    found = {preset.name: preset for preset in kvasir.adapters.presets(kind, adapter)}
    if name not in found:
        raise UserError(tell("no_such_preset", name=name, names=", ".join(found) or "-"))
    return dict(found[name].values)


def _values(fields: list[FormField], given: list[str]) -> dict[str, Any]:
    """What was said, as the fields take it; None where nothing stands behind the sign."""
    kinds = {field.name: field for field in fields}
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(tell("model_say_set"))
        found[name] = _read(kinds.get(name), value)
    return found


def _read(field: FormField | None, value: str) -> Any:
    if not value:
        return None
    if field is not None and field.name in ("model_path", "model_dir"):  # whoever opens it stands elsewhere
        return str(Path(value).expanduser().absolute())
    if field is not None and field.kind == "list":
        return [part.strip() for part in value.split(",") if part.strip()]
    return value  # numbers and switches are read by the section itself


def _json(one: Tended) -> dict[str, Any]:
    return {
        "kind": one.model.kind,
        "name": one.model.name,
        "adapter": one.model.adapter,
        "default": one.model.is_default,
        "enabled": one.model.enabled,
        "added": one.model.is_added,
        "model": one.runs,
        "server": one.where,
        "settings": dict(one.shown),
        "secrets": list(one.model.secrets),
        "memory": one.memory,
        "used_by": list(one.used_by),
    }
