"""Settings: four sources in a fixed order, clear errors, no secret shown, and a sample that is what the code says."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from core import settings as settings_module
from core.errors import ConfigError
from core.settings import fields, load, origins, sample, unknown_variables


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env`, and a data directory of this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVASIR_DATA_DIR", str(tmp_path))


def test_variables_go_before_env_file_before_toml_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvasir.toml").write_text("[web]\nport = 1001\n[answer]\ntop_k = 7\nsentences = 3\n")
    Path(".env").write_text("KVASIR_WEB__PORT=1002\nKVASIR_ANSWER__TOP_K=8\n")
    monkeypatch.setenv("KVASIR_WEB__PORT", "1003")
    found = load()
    assert (found.web.port, found.answer.top_k, found.answer.sentences) == (1003, 8, 3)
    assert found.splitter.chunk_size == settings_module.SplitterSettings().chunk_size
    origin = origins(None, None)
    assert origin["web.port"] == "environment (KVASIR_WEB__PORT)"
    assert origin["answer.top_k"] == ".env"
    assert origin["answer.sentences"] == str(tmp_path / "kvasir.toml")
    assert "splitter.chunk_size" not in origin


def test_a_bad_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_WEB__PORT", "many")
    with pytest.raises(ConfigError, match="KVASIR_WEB__PORT"):
        load()


def test_a_key_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kvasir.toml").write_text("[web]\nprot = 1\n")
    with pytest.raises(ConfigError, match="WEB__PROT"):
        load()


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    """Protection: fault 77, a config file with flipped bits."""
    (tmp_path / "kvasir.toml").write_text("[web\nport = 1")
    with pytest.raises(ConfigError, match="cannot be read"):
        load()


def test_a_config_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_CONFIG_FILE", "/nowhere/kvasir.toml")
    with pytest.raises(ConfigError, match="KVASIR_CONFIG_FILE"):
        load()


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_WEB__PROT", "1")
    assert unknown_variables() == ["KVASIR_WEB__PROT"]


@pytest.mark.sqlite("the file in the data directory")
def test_an_empty_value_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_EMBEDDER__MODEL_DIR", "")
    monkeypatch.setenv("KVASIR_DATABASE__URL", "")
    found = load()
    assert found.embedder.model_dir is None
    assert found.database_url.startswith("sqlite+aiosqlite:///")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_OPENAI__API_KEY", "sk-planted-secret")
    monkeypatch.setenv("KVASIR_DATABASE__URL", "postgresql+asyncpg://u:planted-secret@127.0.0.1/k")
    assert "planted-secret" not in repr(load())


def test_every_setting_has_its_sentence() -> None:
    assert [field.path for field in fields() if not field.description.endswith((".", "?"))] == []


def test_the_sample_file_is_what_the_settings_say() -> None:
    assert (files("configs") / "kvasir.toml").read_text(encoding="utf-8") == sample(), "run: kvasir config sample"


def test_the_sample_can_be_used_with_every_line_uncommented(tmp_path: Path) -> None:
    lines = [line[2:] if line.startswith("# ") and " = " in line else line for line in sample().splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("#") and not line.startswith("data_dir"))
    assert tomllib.loads(text)
    (tmp_path / "all.toml").write_text(text, encoding="utf-8")
    assert load(config_file=tmp_path / "all.toml").web.port == 8410


# ---------------------------------------------------------------- secrets as files
@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("KVASIR_SECRETS_DIR", str(folder))
    return folder


def test_a_secret_is_read_from_a_file_called_as_its_variable(secrets: Path) -> None:
    (secrets / "kvasir_database__url").write_text("postgresql://k:planted@db/kvasir\n")
    (secrets / "KVASIR_SLACK__BOT_TOKEN").write_text("xoxb-planted")
    (secrets / "postgres_password").write_text("of somebody else")
    found = load()
    assert found.database_url == "postgresql://k:planted@db/kvasir"
    assert found.slack.bot_token is not None
    assert found.slack.bot_token.get_secret_value() == "xoxb-planted"
    assert "planted" not in repr(found)
    assert origins(None, None)["database.url"] == str(secrets / "kvasir_database__url")
    assert unknown_variables() == []


def test_variables_go_before_secret_files_before_toml(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvasir.toml").write_text('secret_key = "toml"\n[openai]\napi_key = "toml"\nmodel = "toml"\n')
    (secrets / "kvasir_openai__api_key").write_text("file")
    (secrets / "kvasir_secret_key").write_text("file")
    monkeypatch.setenv("KVASIR_SECRET_KEY", "variable")
    found = load()
    assert found.secret_key is not None
    kept = (found.secret_key.get_secret_value(), found.openai.api_key.get_secret_value(), found.openai.model)
    assert kept == ("variable", "file", "toml")


def test_a_secrets_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: without its secrets Kvasir would make a key and a database of its own."""
    monkeypatch.setenv("KVASIR_SECRETS_DIR", "/nowhere/secrets")
    with pytest.raises(ConfigError, match="KVASIR_SECRETS_DIR"):
        load()


def test_a_misspelt_secret_file_is_noticed(secrets: Path) -> None:
    (secrets / "kvasir_databse__url").write_text("x")
    assert unknown_variables() == ["KVASIR_DATABSE__URL"]


def test_a_folder_of_secrets_that_is_far_too_large_is_refused(secrets: Path) -> None:
    (secrets / "kvasir_secret_key").write_bytes(b"x" * (17 << 20))
    with pytest.raises(ConfigError, match="size"):
        load()
