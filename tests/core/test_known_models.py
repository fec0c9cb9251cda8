"""The well-known models: ready for forms and commands, whatever runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from typer.testing import CliRunner

from core.cli.main import app
from core.embedders.known import presets_for
from core.inference.sections import Kind, settings_with
from core.known import KNOWN, RERANKERS, Shape, known_model
from core.opening import Adapters
from core.settings import Settings


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        ("embedder", "builtin"),
        ("embedder", "sentence-transformers"),
        ("embedder", "instructor"),
        ("embedder", "fastembed"),
        ("reranker", "cross-encoder"),
        ("reranker", "sentence-transformers"),
        ("reranker", "fastembed"),
    ],
)
def test_presets_fit_the_fields_of_their_adapter(kind: Kind, adapter: str, tmp_path: Path) -> None:
    adapters = Adapters()
    assert adapter in adapters.names(kind)
    presets = adapters.presets(kind, adapter)
    assert len(presets) > 2
    assert len({preset.name for preset in presets}) == len(presets)
    fields = {field.name for field in adapters.fields(kind, adapter)}
    for preset in presets[1:]:
        made = settings_with(Settings(data_dir=tmp_path), kind, adapter, preset.values)
        section: Any = getattr(made, kind)
        assert preset.values.keys() <= fields
        assert section.model if adapter == "fastembed" else str(section.model_dir).startswith("/PATH/TO/")


def test_each_model_can_be_run_by_something() -> None:
    assert len({model.name for model in KNOWN}) == len(KNOWN)
    assert {model.shape for model in KNOWN} == set(get_args(Shape))
    assert all(model.adapters for model in KNOWN)
    assert all(model.adapters for model in RERANKERS)


def test_a_model_is_found_by_its_folder_or_its_repository() -> None:
    by_folder, by_repository = known_model("BGE-M3"), known_model("BAAI/bge-m3")
    assert by_folder is by_repository is not None
    assert known_model("my-own-model") is None


def test_a_line_break_of_a_prefix_does_not_stand_in_the_way_of_a_form() -> None:
    qwen = next(preset for preset in presets_for("sentence-transformers") if preset.name == "qwen3-embedding-0.6b")
    assert "query_prefix" not in qwen.values
    assert cast("Any", known_model("Qwen3-Embedding-0.6B")).query_prefix.endswith("\nQuery:")


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_the_command_lists_them(kind: str) -> None:
    result = CliRunner().invoke(app, ["model", "known", "--kind", kind, "--json"])
    assert result.exit_code == 0, result.output
    found = {one["name"]: one for one in json.loads(result.output)["models"]}
    name = {"embedder": "multilingual-e5-small", "reranker": "bge-reranker-base"}[kind]
    assert "sentence-transformers" in found[name]["adapters"]
    table = CliRunner().invoke(app, ["model", "known", "--kind", kind], env={"COLUMNS": "300"})
    assert all(one in table.output for one in found)
