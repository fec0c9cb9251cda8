"""A git repository in a folder, and git's own server for it behind HTTP."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

_WHO = {
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"],
}  # fmt: skip


class GitServer:
    """`login`: the Authorization header without which it says nothing."""

    def __init__(self, folder: Path, server: HTTPServer, *, login: str = "") -> None:
        self.work = folder / "notes"
        self.login = login
        self.requests: list[str] = []
        self.work.mkdir(parents=True)
        self._git("init", "-q", "-b", "main")
        self.url = f"http://127.0.0.1:{server.port}/git/notes"
        self._folder = folder
        server.expect_request(re.compile("^/git/")).respond_with_handler(self._serve)

    def commit(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write these files (None: remove), and commit."""
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", "x")

    def _git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.work, env=_WHO, check=True, capture_output=True)

    def _serve(self, request: Request) -> Response:
        self.requests.append(request.full_path)
        if self.login and request.headers.get("Authorization") != self.login:
            return Response("who?", 401, {"WWW-Authenticate": 'Basic realm="git"'})
        given = request.get_data()
        environment = {
            **_WHO,
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path.removeprefix("/git").replace("/notes", "/notes/.git", 1),
            "QUERY_STRING": request.query_string.decode(),
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(given)),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=given, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        pairs = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        headers = dict(pair for pair in pairs if pair[0] != "Status")
        status = next((int(value[:3]) for key, value in pairs if key == "Status"), 200)
        return Response(body, status, headers)
