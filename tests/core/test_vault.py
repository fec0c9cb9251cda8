"""Kept secrets: read back with the same key only; the key is made once, and is nobody else's to read."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.errors import ConfigError
from core.vault import Vault

TOKEN = "xoxb-planted-secret"
WORDS = SecretStr("a long enough key that somebody has set")


@pytest.mark.parametrize("key", [None, SecretStr(""), WORDS])
def test_what_was_encrypted_can_be_read_back_by_another_process(tmp_path: Path, key: SecretStr | None) -> None:
    kept = Vault(tmp_path, key).encrypt(f"{TOKEN} 密")
    assert TOKEN not in kept
    assert Vault(tmp_path, key).decrypt(kept) == f"{TOKEN} 密"


def test_a_key_of_its_own_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    Vault(tmp_path).encrypt("a")
    (file,) = tmp_path.iterdir()
    made = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    Vault(tmp_path).encrypt("b")
    assert file.read_text() == made
    assert Vault(Path("/nowhere"), SecretStr(made)).decrypt(Vault(tmp_path).encrypt("c")) == "c"


def test_a_key_that_is_given_leaves_no_file(tmp_path: Path) -> None:
    Vault(tmp_path, WORDS).encrypt("a")
    assert list(tmp_path.iterdir()) == []


def test_another_key_or_a_changed_text_is_said(tmp_path: Path) -> None:
    kept = Vault(tmp_path).encrypt(TOKEN)
    for vault, text in (
        (Vault(tmp_path, WORDS), kept),
        (Vault(tmp_path), kept[:-6] + "AAAAA="),
        (Vault(tmp_path), "密"),
        (Vault(tmp_path), ""),
    ):
        with pytest.raises(ConfigError, match="another secret key") as told:
            vault.decrypt(text)
        assert TOKEN not in str(told.value)
        assert WORDS.get_secret_value() not in str(told.value)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KVASIR_SECRET_KEY") as told:
        Vault(tmp_path, SecretStr("hunter2")).encrypt(TOKEN)
    assert "hunter2" not in str(told.value)


def test_an_empty_key_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("\n")
    with pytest.raises(ConfigError, match="fewer than 32"):
        Vault(tmp_path).encrypt(TOKEN)


def test_a_folder_that_takes_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        Vault(tmp_path / "absent").encrypt(TOKEN)


def test_vaults_that_make_a_key_at_once_agree_on_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda _: Vault(tmp_path).encrypt("x"), range(32)))
    assert [Vault(tmp_path).decrypt(text) for text in kept] == ["x"] * 32
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
