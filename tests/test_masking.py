"""Secrets in a program's arguments and in errors do not get into a run's directory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import manifest

import asynctrack
from asynctrack._system.masking import MASK, mask_arguments, mask_text

ENVIRONMENT = {"HF_TOKEN": "tok-from-env-123", "PWD": "/home/u/proj", "TOKENIZERS_PARALLELISM": "parallel"}

SCRIPT = """
import sys
import asynctrack
with asynctrack.init("p", id="a", dir=sys.argv[1]) as run:
    run.log({"i": 1})
    raise ValueError("no answer from https://me:hunter2@host/ with tok-from-env-123")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "--api-key|SECRET", "--api_key=SECRET", "--wandbKey|SECRET", "-token|SECRET", "--hf-token=SECRET", "--PASSWORD|SECRET",
        "--password=SECRET with spaces", "--password|1234:SECRET", "wandb.api_key=SECRET", "+db.password=SECRET",
        "++db.secret='SECRET'", "--env|HF_KEY=SECRET", "--env=HF_KEY=SECRET", '--config|{"api_key": "SECRET", "lr": 3}',
        "--set|a=1,token=SECRET,b=2", "--db|postgresql://user:SECRET@host/db", "--db=mysql://user:p@SECRET/x@host/db",
        "redis://:SECRET@host", "--url|https://ghp_SECRETSECRETSECRETSECRET@github.com/a", "https://h/x?token=SECRET&y=1",
        "-H|Authorization: Bearer SECRETSECRET", "-H|X-Api-Key: SECRET", "--tokens|SECRET|SECRET2", "pre-tok-from-env-123",
        "Server=x;Password=SECRET,SECRET;Db=y", "sk-SECRET0123456789abcdef", "--passphrase|SECRET", "--client.secret|SECRET",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(arguments: str) -> None:
    masked = mask_arguments(arguments.split("|"), ENVIRONMENT)
    assert MASK in " ".join(masked)
    assert "SECRET" not in " ".join(masked) and "tok-from-env" not in " ".join(masked)
    assert len(masked) == len(arguments.split("|"))


@pytest.mark.parametrize(
    "arguments",
    [
        "train.py|--lr|3e-4", "--max-tokens|512", "--token-dim|64", "--tokenizer|gpt2", "--monkey|x", "--key-file|id_rsa",
        "/home/u/proj/train.py", "--path|/x", "--author|me", "--pattern|*.py", "s3://bucket/x@y", "--email|a@b.c",
        "http://host:80/x", "--hf-token|--lr|3", "sqlite:///a.db", "model.key_dim=64", "parallel",
    ],
)  # fmt: skip
def test_what_is_none_is_kept(arguments: str) -> None:
    assert mask_arguments(arguments.split("|"), ENVIRONMENT) == arguments.split("|")


def test_message_keeps_its_words_and_loses_its_secrets() -> None:
    said = "mysql://me:hunter2@host: unexpected token: x, tok-from-env-123, Bearer abcdefgh12"
    assert mask_text(said, ENVIRONMENT) == f"mysql://me:{MASK}@host: unexpected token: x, {MASK}, Bearer {MASK}"


@pytest.mark.parametrize(
    "argument", ["a=" * 100_000, "://" * 50_000 + "@ token=", "--x=" + "a=1," * 50_000, "token=" * 20_000]
)
def test_long_arguments_take_no_time(argument: str) -> None:
    began = time.monotonic()
    mask_arguments([argument])
    assert time.monotonic() - began < 2


def test_secrets_of_a_run_are_nowhere_in_its_directory(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "tok-from-env-123")
    arguments = [sys.executable, "-c", SCRIPT, str(runs), "--api-key", "hunter1", "--db", "sql://me:hunter2@host"]
    done = subprocess.run(arguments, capture_output=True, timeout=40)
    assert b"hunter2" in done.stderr  # what the user sees is his own
    run = runs / "p" / "a"
    assert manifest(run)["environment"]["command"][-4:] == ["--api-key", MASK, "--db", f"sql://me:{MASK}@host"]
    assert f"https://me:{MASK}@host/" in manifest(run)["error"]
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hunter" not in content and b"tok-from-env" not in content, path
    assert asynctrack.open_run(run).status == "failed"
