"""Encrypts what must be kept and read back, such as the tokens of workspaces that installed Kvasir."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from core.errors import ConfigError
from core.texts import tell

if TYPE_CHECKING:  # it takes longer to import than most commands take
    from cryptography.fernet import Fernet

logger = logging.getLogger(__name__)

KEY_FILE: Final = "secret.key"
SHORTEST_KEY: Final = 32
"""Characters; shorter ones can be guessed."""


class Vault:
    """Encrypts with the key given, else with one of its own in the data directory, made when first needed."""

    def __init__(self, data_dir: Path, key: SecretStr | None = None) -> None:
        self._file = data_dir / KEY_FILE
        self._key = key

    def encrypt(self, text: str) -> str:
        """Raises ConfigError where the key cannot be used."""
        return self._fernet.encrypt(text.encode("utf-8")).decode("ascii")

    def decrypt(self, text: str) -> str:
        """What was encrypted. Raises ConfigError where that was done with another key, or the text was changed."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(text.encode("utf-8")).decode("utf-8")
        except InvalidToken as error:
            raise ConfigError(tell("vault_other_key", file=self._file)) from error

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        words = self._key.get_secret_value() if self._key else ""
        words = (words or self._own()).strip()
        if len(words) < SHORTEST_KEY:
            raise ConfigError(tell("vault_short_key", least=SHORTEST_KEY, file=self._file))
        key = HKDF(SHA256(), 32, salt=None, info=b"kvasir vault").derive(words.encode("utf-8"))
        return Fernet(base64.urlsafe_b64encode(key))

    def _own(self) -> str:
        try:
            try:
                return self._file.read_text("utf-8")
            except FileNotFoundError:
                self._make()
                return self._file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(tell("vault_no_key", file=self._file, reason=reason)) from error

    def _make(self) -> None:
        """A new key, whole or not at all; of two processes that make one, the first wins."""
        handle, name = tempfile.mkstemp(prefix=f"{KEY_FILE}.", dir=self._file.parent)  # readable by nobody else
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{secrets.token_urlsafe(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(name, self._file)
            logger.info("a key of our own was made: %s", self._file)
        except FileExistsError:
            logger.debug("another process has made the key")
        finally:
            Path(name).unlink()
