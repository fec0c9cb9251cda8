"""One worker for all processes of a house: the first that wants a model runs it, the others find it by a file.

`<data>/workers/NAME.lock` is held by its owner while that lives, `NAME.json` says where the worker is, with its key,
and how it is. When the owner goes, whoever asks next takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from core.errors import ConfigError
from core.ports import ProcessState
from core.serving import client as worker
from core.serving.client import Address, LoadFailed, Lost
from core.serving.driver import Card
from core.serving.plan import Plan, Trouble
from core.serving.supervisor import Progress, Supervisor
from core.texts import spoken, tell

logger = logging.getLogger(__name__)

_LONGEST_PATH: Final = 100
"""Bytes; the kernel takes 107."""
_LOOK_SECONDS: Final = 0.1
_DRAIN_SECONDS: Final = 6.0
"""Within what a model may take to close (`core/inference/pool.py`)."""


class SharedWorker:
    """The worker of a plan, run by this process or by another of the house."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._folder = _private(plan.data_dir / "workers")
        self._note = self._folder / f"{plan.name}.json"
        self._taking = asyncio.Lock()
        self._own: _Own | None = None
        self._lives = 0
        self.address = Address()
        self.card: Card | None = None

    @property
    def life(self) -> tuple[int, int]:
        """Another one whenever the worker is another one."""
        return self._lives, self._own.supervisor.life if self._own else 0

    @property
    def is_own(self) -> bool:
        return self._own is not None

    async def open(self) -> Trouble | None:
        """Have it loaded; what keeps it from that."""
        async with self._taking:
            return await self._take()

    async def ready(self, seconds: float) -> Trouble | None:
        """Wait until it can be asked, so long at most; what keeps it from that."""
        if self._own is not None:
            trouble = await self._own.supervisor.ready(seconds)
            self.card = self._own.supervisor.card or self.card
            return trouble
        note = _Note.read(self._note)
        if note is not None and note.address == self.address:
            return note.trouble
        return await self.open()

    async def ended(self, life: tuple[int, int], seconds: float) -> Trouble | None:
        """Why the worker of that life answers no more; None where it goes on after so many seconds."""
        if self.life != life:
            return self.trouble or Trouble("worker_lost")
        if self._own is not None:
            return await self._own.supervisor.ended(life[1], seconds)
        async with self._taking:
            if self.life == life and not await _answers(self.address):
                trouble = await self._take()
                return trouble or Trouble("worker_lost")
        note = _Note.read(self._note)
        return (note.trouble if note else None) or Trouble("worker_lost")

    @property
    def trouble(self) -> Trouble | None:
        """What ended its last life, or keeps it from the next."""
        return self._own.supervisor.trouble if self._own else None

    @property
    def state(self) -> ProcessState:
        if self._own is None or self._own.supervisor.state == "ready":
            return ProcessState()
        trouble = self.trouble
        state: Literal["away", "failed"] = "failed" if self._own.supervisor.state == "failed" else "away"
        return ProcessState(state, trouble.say(spoken()) if trouble else "")

    def revive(self) -> None:
        if self._own is not None:
            self._own.supervisor.revive()

    async def close(self) -> None:
        """Let its answers end for a while, then end it, where it is our own."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    # ------------------------------------------------------------ whose it is
    async def _take(self) -> Trouble | None:
        """Run it, or find who does."""
        by = time.monotonic() + self._plan.start_seconds
        while time.monotonic() < by:
            lock = _claimed(self._folder / f"{self._plan.name}.lock")
            if lock is not None:
                return await self._begin(lock, by)
            note = _Note.read(self._note)
            if note is not None and await _answers(note.address):
                return note.trouble or await self._join(note.address)
            await asyncio.sleep(_LOOK_SECONDS)
        return Trouble("worker_not_ready")

    async def _begin(self, lock: IO[bytes], by: float) -> Trouble | None:
        try:
            own = _Own(self._plan, lock, self._folder, self._note, self._progress)
        except OSError as error:
            lock.close()
            raise ConfigError(tell("data_dir_refused", folder=self._folder, reason=error.strerror or error)) from error
        try:
            trouble = await own.alone(by) or await own.supervisor.start()
        except BaseException:
            await own.close()
            raise
        if trouble is not None:
            await own.close()
            return trouble
        self._own, self.address, self.card = own, own.address, own.supervisor.card
        self._lives += 1
        return None

    async def _join(self, address: Address) -> Trouble | None:
        try:
            async with address.client() as asking:
                self.card = await worker.load(asking, self._progress)
        except LoadFailed as error:
            return error.trouble
        except Lost:
            return Trouble("worker_lost")
        self.address = address
        self._lives += 1
        logger.info("another process of Kvasir runs this model")
        return None


class _Own:
    """A worker that this process runs for the house."""

    def __init__(self, plan: Plan, lock: IO[bytes], folder: Path, note: Path, progress: Progress) -> None:
        self._plan = plan
        self._lock = lock
        self._alone: IO[bytes] | None = None
        self._folder = folder
        self._note = note
        self._progress = progress
        self._path = _socket_path(folder, plan.name)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(socket.SOMAXCONN)
        self._listener.setblocking(False)
        self.address = Address(plan.kind, path=str(self._path), key=secrets.token_urlsafe(32))
        self.supervisor = Supervisor(plan, self.address, self._listener.fileno(), progress, self._write)

    async def alone(self, by: float) -> Trouble | None:
        """Wait for the model that has the card, where this one is to be alone there."""
        self._write()
        try:
            self._alone = await card_of(self._plan, by, self._progress)
        except TimeoutError:
            return Trouble("worker_not_alone", is_final=True)
        return None

    async def close(self) -> None:
        self._note.unlink(missing_ok=True)
        try:
            await self.supervisor.stop(_DRAIN_SECONDS)
        finally:
            self._note.unlink(missing_ok=True)
            self._listener.close()
            self._path.unlink(missing_ok=True)
            if self._path.parent != self._folder:
                with contextlib.suppress(OSError):  # another model of this house is there
                    self._path.parent.rmdir()
            for lock in (self._alone, self._lock):
                if lock is not None:
                    lock.close()

    def _write(self) -> None:
        """Tell the others of the house where it is, and how."""
        if self.supervisor.state == "closed":
            return
        trouble = self.supervisor.trouble if self.supervisor.state == "failed" else None
        try:
            _Note(self.address, trouble).write(self._note)
        except OSError as error:  # this process can use it all the same
            logger.warning("other processes cannot be told of the worker: %s", error.strerror or error)


@dataclass(frozen=True, slots=True)
class _Note:
    """What the file of a worker says."""

    address: Address
    trouble: Trouble | None = None
    """It was given up."""

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            trouble = Trouble(found["trouble"], found["values"]) if found["trouble"] else None
            address = Address(str(found["kind"]), path=str(found["socket"]), key=str(found["key"]))
            return cls(address, trouble)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        trouble = self.trouble
        document = {
            "kind": self.address.name,
            "socket": self.address.path,
            "key": self.address.key,
            "pid": os.getpid(),
            "trouble": trouble.key if trouble else "",
            "values": trouble.plain if trouble else {},
        }
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False, mode="w", encoding="utf-8") as file:
            json.dump(document, file)  # a file of this kind is readable by its owner alone
        Path(file.name).replace(path)


async def card_of(plan: Plan, by: float, progress: Progress) -> IO[bytes] | None:
    """The right to be the one model that is to be alone, until it is closed; None where the plan does not want it.

    Waits for it until `by` (`time.monotonic`). Raises TimeoutError then.
    """
    while plan.alone:
        lock = _claimed(_private(plan.data_dir / "workers") / "alone.lock")
        if lock is not None:
            return lock
        progress("turn", 0.0)
        if time.monotonic() > by:
            raise TimeoutError
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def _answers(address: Address) -> bool:
    """Whether somebody listens there; also where the worker is just being started."""
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_unix_connection(address.path)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _claimed(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed or this process ends; None where another has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _private(folder: Path) -> Path:
    """The folder, closed to other users. Raises ConfigError where it cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or folder.is_symlink():
            raise ConfigError(tell("data_dir_refused", folder=folder, reason="-"))
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(tell("data_dir_refused", folder=folder, reason=error.strerror or error)) from error
    return folder


def _socket_path(folder: Path, name: str) -> Path:
    """In the house, where its path is short enough for a socket, else in a private folder of its own."""
    path = folder / f"{name}.sock"
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return _private(Path(tempfile.gettempdir()) / f"kvasir-{os.getuid()}-{mark}") / f"{name[-16:]}.sock"
