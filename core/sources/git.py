"""The files of a git repository; it is copied without a work tree, so that nothing in it is ever run or followed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import Field

from core import egress
from core.errors import Unavailable, UserError
from core.settings import SourcesSettings
from core.sources.git_command import BlobReader, Git, executable
from core.sources.patterns import is_wanted
from core.sources.port import Address, Content, Item, Listing, Mark, Patterns, SourceKind, Spec, Tools
from core.texts import tell

_LOOK_SECONDS: Final = 60.0
_COPY_SECONDS: Final = 900.0
_FILES: Final = ("100644", "100755")
"""Modes of plain files; links and submodules have others."""


class GitSpec(Spec):
    url: Address
    branch: Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9_][A-Za-z0-9._/-]*)?$")] = ""
    """Empty: the repository's own."""
    folder: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\\:]*$")] = ""
    """Take only what is below it."""
    include: Patterns = ()
    exclude: Patterns = ()
    username: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f:]*$")] = ""


class Repository:
    def __init__(self, git: Git, reader: BlobReader, listing: Listing) -> None:
        self._git = git
        self._reader = reader
        self._listing = listing

    async def list(self) -> Listing:
        return self._listing

    async def read(self, item: Item, _known: Mark) -> Content | None:
        return Content(await self._reader.read(item.mark["sha"]))


async def _copy(git: Git, spec: GitSpec, tools: Tools) -> None:
    words = ["clone", "--quiet", "--bare", "--depth=1", "--single-branch", "--no-tags", "--no-recurse-submodules"]
    words += ["--template=", *(("--branch", spec.branch) if spec.branch else ())]
    await git.run(*words, "--", git.url, str(git.folder / "copy"), seconds=_COPY_SECONDS, most=tools.visit.left)


async def _listed(git: Git, spec: GitSpec, tools: Tools) -> Listing:
    folder = "/".join(part for part in spec.folder.split("/") if part not in ("", ".", ".."))
    try:
        printed = await git.run("ls-tree", "-r", "-z", "-l", f"HEAD:{folder}", seconds=_LOOK_SECONDS, most=1 << 40)
    except Unavailable as error:
        raise UserError(tell("git_no_folder", folder=spec.folder)) from error
    items: list[Item] = []
    unreadable = large = 0
    limit = tools.settings.max_documents
    for line in printed.decode("utf-8", "replace").split("\0"):
        head, _, path = line.partition("\t")
        mode, _, sha, size, *_ = (*head.split(), "", "", "", "")
        if mode not in _FILES or _is_hidden(path) or not is_wanted(path, spec.include, spec.exclude):
            continue
        if PurePosixPath(path).suffix.lower() not in tools.readable:
            unreadable += 1
        elif int(size) > tools.max_file_bytes:
            large += 1
        elif len(items) == limit:
            return Listing(items, False, (tell("source_limit", most=limit),))
        else:
            items.append(Item(path, path, git.url, {"sha": sha}))
    notes = [tell("source_skipped_unreadable", count=unreadable)] if unreadable else []
    notes += [tell("source_skipped_large", count=large)] if large else []
    return Listing(items, notes=tuple(notes))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


@asynccontextmanager
async def open_repository(spec: GitSpec, secrets: Mapping[str, str], tools: Tools) -> AsyncIterator[Repository]:
    with tempfile.TemporaryDirectory(prefix="kvasir-git-", ignore_cleanup_errors=True) as folder:
        git = await Git.meet(Path(folder), spec.url, tools.visit, spec.username, secrets.get("token", ""))
        await _copy(git, spec, tools)
        copy = git.inside("copy")
        listing = await _listed(copy, spec, tools)
        async with copy.reader() as reader:
            yield Repository(copy, reader, listing)


async def state(spec: GitSpec, secrets: Mapping[str, str], tools: Tools) -> str:
    """The commit that the branch is at; with what is taken from it, says whether there is anything to be done."""
    with tempfile.TemporaryDirectory(prefix="kvasir-git-", ignore_cleanup_errors=True) as folder:
        git = await Git.meet(Path(folder), spec.url, tools.visit, spec.username, secrets.get("token", ""))
        name = f"refs/heads/{spec.branch}" if spec.branch else "HEAD"
        printed = await git.run("ls-remote", "--", git.url, name, seconds=_LOOK_SECONDS)
    commit = printed.split()[0].decode("ascii", "replace") if printed.split() else ""
    if not commit:
        return ""
    return hashlib.sha256(f"{commit} {spec.model_dump_json()}".encode()).hexdigest()


def _check(spec: GitSpec, _settings: SourcesSettings) -> None:
    executable()
    parsed = egress.parse(spec.url)
    if parsed.query:
        raise UserError(tell("fetch_bad_url", url=spec.url.partition("?")[0][:200]))


def check_token(spec: GitSpec, settings: SourcesSettings) -> None:
    """A secret goes only where nobody on the way can read it. Raises UserError."""
    parsed = egress.parse(spec.url)
    if parsed.scheme != "https" and parsed.host not in {host.lower() for host in settings.private_hosts}:
        raise UserError(tell("git_token_https"))


GIT = SourceKind(
    GitSpec, open_repository, check=_check, secrets=frozenset({"token"}), check_secrets=check_token, state=state
)
