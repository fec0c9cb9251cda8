"""What others wrote and we ship is what they published: each file has its digest and its licence beside it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import admin

VENDOR = Path(admin.__file__).parent / "static" / "vendor"


def test_every_file_has_its_digest_and_its_licence() -> None:
    """Protection: `README.md` of each folder in admin/static/vendor."""
    folders = [folder for folder in VENDOR.iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        told = dict(re.findall(r"^    ([0-9a-f]{64})  (\S+)$", (folder / "README.md").read_text(), re.MULTILINE))
        files = {path.name for path in folder.iterdir()} - {"LICENSE", "README.md"}
        assert files == set(told.values())
        assert "Copyright" in (folder / "LICENSE").read_text()
        for digest, name in told.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
