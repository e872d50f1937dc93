"""The page's modules of others are as `.ci/vendor` has fetched them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import asynctrack

VENDOR = Path(asynctrack.__file__).parent / "ui" / "page" / "vendor"
FILES = {
    name: file
    for package in json.loads((VENDOR / "versions.json").read_text())
    for name, file in package["files"].items()
}


def test_each_file_has_the_hash_that_is_noted() -> None:
    found = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in FILES}
    assert found == {name: file["sha256"] for name, file in FILES.items()}


def test_no_file_is_there_that_is_not_noted() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*FILES, "versions.json"}


def test_each_package_has_its_licence_beside_it() -> None:
    for package in json.loads((VENDOR / "versions.json").read_text()):
        licence = next(name for name in package["files"] if name.endswith(".LICENSE"))
        text = (VENDOR / licence).read_text()
        assert {"MIT": "Permission is hereby granted", "Apache-2.0": "Apache License"}[package["licence"]] in text


def test_modules_import_only_what_lies_beside_them() -> None:
    for path in VENDOR.glob("*.js"):
        for name in re.findall(r'\bfrom ?"([^"]+)"|\bimport\("([^"]+)"', path.read_text()):
            assert (VENDOR / (name[0] or name[1])).is_file(), (path.name, name)
