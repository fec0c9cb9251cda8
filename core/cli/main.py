"""The tree of commands; further ones join by the entry points `kvasir.commands`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from core import registry
from core.cli import (
    ask,
    channels,
    config,
    connections,
    curated,
    data,
    documents,
    evaluation,
    extensions,
    imports,
    kbs,
    models,
    originals,
    people,
    persons,
    schedules,
    sources,
    up,
    versions,
    work,
    worker,
)
from core.cli.common import GLOBALS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Kvasir answers questions from your own documents, with sources, on your own machine.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvasir {version('kvasir')}")
        raise typer.Exit


@app.callback()
def _globals(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder for everything Kvasir keeps (KVASIR_DATA_DIR).")
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with settings (KVASIR_CONFIG_FILE).", exists=True, dir_okay=False),
    ] = None,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    GLOBALS.data_dir = data_dir.expanduser().resolve() if data_dir else None
    GLOBALS.config = config_file


app.command("up")(up.up)
app.command("ask")(ask.ask)
app.command("search")(ask.search)
app.command("ingest")(documents.ingest)
app.add_typer(kbs.kb, name="kb")
kbs.kb.command("import-chatchat")(imports.kb_import_chatchat)
app.add_typer(documents.doc, name="doc")
documents.doc.command("versions")(versions.doc_versions)
documents.doc.command("restore")(versions.doc_restore)
documents.doc.command("retry")(versions.doc_retry)
app.command("eval")(evaluation.evaluate)
app.add_typer(models.model, name="model")
models.model.command("build")(extensions.model_build)
app.add_typer(people.user, name="user")
app.add_typer(people.key, name="key")
app.add_typer(persons.person, name="person")
app.add_typer(channels.channel, name="channel")
app.add_typer(connections.connection, name="connection")
app.add_typer(work.feedback, name="feedback")
app.add_typer(curated.curated, name="curated")
app.add_typer(work.job, name="job")
app.add_typer(schedules.schedule, name="schedule")
app.add_typer(sources.source, name="source")
app.add_typer(config.config, name="config")
app.add_typer(originals.originals, name="originals")
app.add_typer(data.db, name="db")
app.command("backup")(data.backup)
app.command("restore")(data.restore)
app.command("doctor")(data.doctor)
app.command("worker")(worker.worker)

for _name in registry.names("kvasir.commands"):
    app.add_typer(registry.load("kvasir.commands", _name), name=_name)
