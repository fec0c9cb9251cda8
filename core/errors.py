"""Kvasir's errors. Each carries one sentence that a user may read and that says what to do.

KvasirError
├── UserError                   the request cannot be met as it is; nothing was changed
│   ├── NotAccepted             for reasons that some of its fields have
│   ├── NotFound
│   ├── Conflict
│   ├── NotAllowed
│   │   └── LoginNeeded         nobody is logged in, or the login was refused
│   ├── TooLarge
│   └── TooMany                 too often; may work after a while
├── DocumentError               a document could not be read; the others go on
├── Unavailable                 a part that is needed is down, missing or too slow; may work later
│   ├── BadStatus               a server answered, but not with what was asked for
│   │   └── Gone                a page that is not there (any more)
│   ├── EngineUnavailable
│   │   └── EngineBroke         its server went away, before or while it answered
│   ├── EmbedderUnavailable
│   ├── StoreUnavailable
│   └── StorageFull             the disk takes no more
├── MissingExtra                an optional package is not installed
└── ConfigError                 the settings or a file of ours cannot be used
"""

from __future__ import annotations

from collections.abc import Mapping


class KvasirError(Exception):
    """`str(error)` is the sentence."""


class UserError(KvasirError):
    pass


class NotAccepted(UserError):
    def __init__(self, sentence: str, fields: Mapping[str, str]) -> None:
        """`fields`: what is wrong with each of those that cannot be."""
        super().__init__(sentence)
        self.fields = fields


class NotFound(UserError):
    pass


class Conflict(UserError):
    pass


class NotAllowed(UserError):
    pass


class LoginNeeded(NotAllowed):
    pass


class TooLarge(UserError):
    pass


class TooMany(UserError):
    def __init__(self, sentence: str, seconds: float = 0) -> None:
        """`seconds`: until it may work; 0 where nobody knows."""
        super().__init__(sentence)
        self.seconds = seconds


class DocumentError(KvasirError):
    pass


class Unavailable(KvasirError):
    pass


class BadStatus(Unavailable):
    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Gone(BadStatus):
    def __init__(self, sentence: str, status: int = 404) -> None:
        super().__init__(sentence, status)


class EngineUnavailable(Unavailable):
    pass


class EngineBroke(EngineUnavailable):
    pass


class EmbedderUnavailable(Unavailable):
    pass


class StoreUnavailable(Unavailable):
    pass


class StorageFull(Unavailable):
    pass


class MissingExtra(KvasirError):
    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package. Install it with: pip install 'kvasir[{extra}]'")
        self.extra = extra


class ConfigError(KvasirError):
    pass
