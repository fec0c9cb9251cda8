"""A server that speaks S3, on loopback: `versitygw` where it is on PATH, else moto's, in this process.

KVASIR_TEST_S3_SERVER=moto takes moto's in any case. moto believes every key, so what a key may do needs the real one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.settings import OriginalsSettings

ACCESS, SECRET = "kvasirtest", "a-secret-of-the-tests"
_READY_SECONDS = 30


@dataclass(frozen=True)
class S3:
    endpoint: str
    is_real: bool

    def settings(self, **changed: object) -> OriginalsSettings:
        """A bucket of one's own, with a prefix in it."""
        bucket = f"kv{uuid.uuid4().hex[:12]}"
        given: dict[str, object] = {
            "url": f"s3://{bucket}/originals/of-kvasir", "endpoint": self.endpoint,
            "access_key": ACCESS, "secret_key": SECRET, "seconds": 5,
        }  # fmt: skip
        made = OriginalsSettings.model_validate(given | changed)
        self.make_bucket(bucket)
        return made

    def make_bucket(self, name: str) -> None:
        """By a signed request; obstore makes none."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
        )  # fmt: skip
        client.create_bucket(Bucket=name)
        client.close()


@contextlib.contextmanager
def any_s3(folder: Path) -> Iterator[S3]:
    program = shutil.which("versitygw")
    if program is None or os.environ.get("KVASIR_TEST_S3_SERVER") == "moto":
        with _moto() as found:
            yield found
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET, "posix", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait(endpoint, process)
        yield S3(endpoint, is_real=True)
    finally:
        process.kill()
        process.wait(30)


@contextlib.contextmanager
def _moto() -> Iterator[S3]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3(f"http://{host}:{port}", is_real=False)
    finally:
        server.stop()


def _wait(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        host, port = endpoint.removeprefix("http://").split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        assert process.poll() is None, "versitygw has not come up"
        assert time.monotonic() < deadline, "versitygw has not come up"
        time.sleep(0.05)
