"""A repository that somebody else has made cannot run code because a run in it keeps where it comes from, nor hold it up, nor have other files read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrack.provenance.git_command import Git, find_program
from asynctrack.provenance.git_state import collect, without_credentials
from asynctrack.provenance.uncommitted import MOST_BYTES, Changes

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")


def git(directory: Path, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=directory, check=True, capture_output=True, text=True, env={**os.environ, **more}
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A repository with a commit, and a change that is not committed."""
    path = tmp_path / "code"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "model.py").write_text("layers = 1\n")
    (path / "data.txt").write_text("1\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    (path / "model.py").write_text("layers = 2\n")
    return path


def look(directory: Path, *, limit_s: float = 20.0, diff: bool = True) -> tuple[dict[str, object], Changes | None]:
    """Find out about a repository as the collecting process does."""
    program = find_program("git")
    assert program is not None
    found: dict[str, object] = {}
    changes = collect(Git(program, time.monotonic() + limit_s), str(directory), found.update, diff=diff)
    return found, changes


def patch_of(directory: Path) -> bytes:
    changes = look(directory)[1]
    assert changes is not None
    return changes.patch


def mark(code: Path) -> str:
    """A program that leaves a mark, as a command of the shell, and is in the way of nothing."""
    program = code.parent / "program"
    program.write_text(f"#!/bin/sh\necho x >{code.parent}/mark\ncat 2>/dev/null\nexit 0\n")
    program.chmod(0o755)
    return str(program)


def fsmonitor(code: Path) -> None:
    git(code, "config", "core.fsmonitor", mark(code))


def hooks(code: Path) -> None:
    (code / "hooks").mkdir()
    names = ("post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout", "pre-auto-gc")
    for name in names:
        for folder in (code / "hooks", code / ".git/hooks"):
            (folder / name).write_text(f"#!/bin/sh\nexec {mark(code)}\n")
            (folder / name).chmod(0o755)
    git(code, "config", "core.hooksPath", str(code / "hooks"))


def external_diff(code: Path) -> None:
    git(code, "config", "diff.external", mark(code))


def diff_driver(code: Path) -> None:
    git(code, "config", "diff.mine.command", mark(code))
    (code / ".gitattributes").write_text("* diff=mine\n")


def text_conversion(code: Path) -> None:
    git(code, "config", "diff.mine.textconv", mark(code))
    git(code, "config", "diff.mine.cachetextconv", "true")
    (code / ".git/info").mkdir(exist_ok=True)
    (code / ".git/info/attributes").write_text("* diff=mine\n")


def clean_filter(code: Path) -> None:
    git(code, "config", "filter.mine.clean", mark(code))
    git(code, "config", "filter.mine.smudge", mark(code))
    git(code, "config", "filter.mine.required", "true")
    (code / ".gitattributes").write_text("* filter=mine\n")


def filter_process(code: Path) -> None:
    git(code, "config", "filter.mine.process", mark(code))
    (code / ".git/info").mkdir(exist_ok=True)
    (code / ".git/info/attributes").write_text("* filter=mine\n")


def pager_and_aliases(code: Path) -> None:
    for name in ("core.pager", "pager.diff", "pager.config", "core.editor", "core.askPass", "gpg.program", "interactive.diffFilter"):  # fmt: skip
        git(code, "config", name, mark(code))
    for name in ("alias.diff", "alias.rev-parse", "alias.config", "alias.symbolic-ref", "alias.check-attr"):
        git(code, "config", name, f"!{mark(code)}")


def included(code: Path) -> None:
    (code / "settings").write_text(f"[core]\n\tfsmonitor = {mark(code)}\n[diff]\n\texternal = {mark(code)}\n")
    git(code, "config", "include.path", str(code / "settings"))
    git(code, "config", "extensions.worktreeConfig", "true")
    (code / ".git/config.worktree").write_text((code / "settings").read_text())


def missing_objects(code: Path) -> None:
    """A partial clone, of which objects have to be fetched by a transport of its choice."""
    for name, value in (
        ("core.repositoryFormatVersion", "1"), ("extensions.partialClone", "origin"), ("remote.origin.url", f"ext::{mark(code)}"),
        ("remote.origin.promisor", "true"), ("remote.origin.uploadpack", mark(code)), ("remote.origin.vcs", "mine"), ("protocol.ext.allow", "always"),
        ("protocol.allow", "always"), ("core.sshCommand", mark(code)), ("core.gitProxy", mark(code)), ("core.alternateRefsCommand", mark(code)),
    ):  # fmt: skip
        git(code, "config", name, value)
    blob = git(code, "rev-parse", "HEAD:model.py")
    (code / ".git/objects" / blob[:2] / blob[2:]).unlink()


def submodule(code: Path) -> None:
    other = code.parent / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "a").write_text("1\n")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "a")
    git(code, "submodule", "--quiet", "add", str(other), "sub")
    git(code, "commit", "-q", "-m", "sub", "--", "sub", ".gitmodules")
    inside = code / "sub"
    (inside / "a").write_text("2\n")
    fsmonitor_in = code / ".git/modules/sub"
    git(inside, "config", "core.fsmonitor", mark(code))
    git(inside, "config", "diff.external", mark(code))
    git(code, "config", "diff.submodule", "diff")
    git(code, "config", "submodule.recurse", "true")
    git(code, "config", "diff.ignoreSubmodules", "none")
    assert fsmonitor_in.is_dir()


WAYS: list[Callable[[Path], None]] = [
    fsmonitor, hooks, external_diff, diff_driver, text_conversion, clean_filter, filter_process, pager_and_aliases, included, missing_objects,
    submodule,
]  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_repository_cannot_run_code(code: Path, way: Callable[[Path], None]) -> None:
    way(code)
    (code.parent / "mark").unlink(missing_ok=True)
    found, _ = look(code)
    assert found["commit"] == git(code, "rev-parse", "HEAD")
    assert found["branch"] == "main"
    assert not (code.parent / "mark").exists()


@pytest.mark.parametrize("way", [fsmonitor, external_diff, diff_driver, clean_filter], ids=lambda way: way.__name__)
def test_the_same_repositories_run_code_with_plain_git(code: Path, way: Callable[[Path], None]) -> None:
    way(code)
    (code.parent / "mark").unlink(missing_ok=True)
    subprocess.run(
        ["git", "diff", "HEAD"], cwd=code, capture_output=True, check=False, env={**os.environ, "GIT_PAGER": "cat"}
    )
    assert (code.parent / "mark").exists()


@pytest.mark.system
def test_variables_of_the_environment_lead_git_nowhere_else(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = mark(code)
    for name, value in (
        ("GIT_DIR", "/nowhere"), ("GIT_WORK_TREE", "/nowhere"), ("GIT_INDEX_FILE", "/nowhere"), ("GIT_EXTERNAL_DIFF", program), ("GIT_PAGER", program),
        ("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "core.fsmonitor"), ("GIT_CONFIG_VALUE_0", program), ("GIT_EXEC_PATH", str(code)),
        ("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={program}'"), ("GIT_SSH_COMMAND", program), ("GIT_TRACE", str(code.parent / "mark")),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert b"layers = 2" in patch_of(code)
    assert not (code.parent / "mark").exists()


def test_files_of_another_place_are_not_compared(code: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "model.py").write_text("a secret\n")
    git(code, "config", "core.worktree", str(private))
    found, changes = look(code)
    assert found["commit"]
    assert changes is None


def test_a_bare_repository_in_a_work_tree_is_none(code: Path) -> None:
    git(code.parent, "clone", "-q", "--bare", str(code), str(code / "bare"))
    assert look(code / "bare") == ({}, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_of_another_users_repository_commit_and_branch_are_kept_and_no_changes(code: Path) -> None:
    commit = git(code, "rev-parse", "HEAD")
    for path in (code, *code.rglob("*")):
        os.chown(path, 12345, 12345)
    found, changes = look(code)
    assert (found["commit"], found["branch"], found.get("dirty")) == (commit, "main", None)
    assert changes is None


@pytest.mark.system
def test_pipes_in_a_repository_hold_it_up_no_longer_than_its_limit(code: Path) -> None:
    (code / "data.txt").unlink()
    os.mkfifo(code / "data.txt")
    os.mkfifo(code / "pipe")
    changes = look(code)[1]
    assert changes is not None
    assert (changes.left_out, b"layers = 2" in changes.patch) == (["data.txt"], True)
    git(code, "config", "include.path", str(code / "pipe"))
    began = time.monotonic()
    assert look(code, limit_s=1.0) == ({}, None)
    assert time.monotonic() - began < 5


def test_a_patch_has_what_changed_and_names_what_it_has_not(code: Path) -> None:
    (code / "big.py").write_text("x = 1\n" * (MOST_BYTES // 3))
    (code / "many.py").write_text("y = 1\n" * (MOST_BYTES // 8))
    (code / "binary").write_bytes(bytes(range(256)))
    (code / "line").write_text("z" * (MOST_BYTES - 10))
    (code / "umläut \n name").write_text("1\n")
    (code / "data.txt").unlink()
    git(code, "add", ".")
    changes = look(code)[1]
    assert changes is not None
    assert changes.dirty
    assert changes.cut
    assert set(changes.left_out) == {"big.py", "binary", "line"}
    assert MOST_BYTES // 2 < len(changes.patch) <= MOST_BYTES
    assert applied(code, changes.patch) == {"model.py", "many.py", "umläut \n name"}


def applied(code: Path, patch: bytes) -> set[str]:
    """The files of a clone to which a patch was applied."""
    again = code.parent / "again"
    git(code.parent, "clone", "-q", str(code), str(again))
    subprocess.run(["git", "apply"], cwd=again, input=patch, check=True)
    return {path.name for path in again.iterdir()} - {".git"}


def test_secrets_in_a_patch_are_masked(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "swordfish1")
    monkeypatch.setenv("MY_PRIVATE_KEY", "-----BEGIN-----\nabcdefghijklmnopqrstuvwxyz\n-----END-----")
    (code / "model.py").write_text(
        "a = 'swordfish1'\nb = 'https://u:pw123@h/x'\nc = 'ghp_0123456789abcdefghij'\nabcdefghijklmnopqrstuvwxyz\nrest = 1\n"
    )
    changes = look(code)[1]
    assert changes is not None
    assert changes.masked
    assert not [one for one in (b"swordfish1", b"pw123", b"ghp_", b"abcdefghij") if one in changes.patch]
    assert b"+rest = 1" in changes.patch
    assert applied(code, changes.patch) == {"model.py", "data.txt"}


def test_a_checkout_that_was_copied_has_not_changed(code: Path) -> None:
    git(code, "checkout", "-q", "--", ".")
    (code / ".git/info").mkdir(exist_ok=True)
    later = time.time() + 100
    for path in (code / "model.py", code / "data.txt"):
        os.utime(path, (later, later))
    changes = look(code)[1]
    assert changes is not None
    assert (changes.dirty, changes.patch, changes.cut) == (False, b"", False)


@pytest.mark.system
def test_each_state_of_a_repository_gives_what_can_be_known(code: Path, tmp_path: Path) -> None:
    commit = git(code, "rev-parse", "HEAD")
    git(code, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side" / "model.py").write_text("layers = 3\n")
    found, changes = look(tmp_path / "side")
    assert (found["branch"], found["commit"]) == ("side", commit)
    assert changes is not None
    assert b"layers = 3" in changes.patch
    git(code, "update-index", "--split-index")
    git(code, "checkout", "-q", "--detach")
    found, changes = look(code)
    assert (found["branch"], found["commit"]) == (None, commit)
    assert changes is not None
    assert b"layers = 2" in changes.patch
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q", "-b", "main")
    assert look(empty)[0]["commit"] is None
    (empty / "a").write_text("1\n")
    git(empty, "add", "a")
    found, changes = look(empty)
    assert changes is not None
    assert (found["branch"], changes.dirty) == ("main", True)
    assert b"+1" in changes.patch
    inside = code / "deep" / "down"
    inside.mkdir(parents=True)
    assert look(inside)[0]["root"] == str(code)
    assert look(tmp_path) == ({}, None)


@pytest.mark.system
def test_a_conflict_leaves_a_patch_that_can_be_applied(code: Path) -> None:
    git(code, "commit", "-q", "-am", "two")
    git(code, "checkout", "-q", "-b", "side", "HEAD~")
    (code / "model.py").write_text("layers = 5\n")
    git(code, "commit", "-q", "-am", "five")
    subprocess.run(["git", *IDENTITY, "merge", "main"], cwd=code, capture_output=True, check=False)
    assert (code / "model.py").read_text().startswith("<<<<")
    changes = look(code)[1]
    assert changes is not None
    assert changes.dirty
    assert b"* Unmerged" not in changes.patch
    again = code.parent / "again"
    git(code.parent, "clone", "-q", "-b", "side", str(code), str(again))
    subprocess.run(["git", "apply"], cwd=again, input=changes.patch, check=True)
    assert (again / "model.py").read_text().startswith("<<<<")


def test_a_changed_submodule_and_a_filtered_file_are_named(code: Path) -> None:
    submodule(code)
    git(code / "sub", "commit", "-q", "-am", "two")
    (code / ".gitattributes").write_text("data.txt filter=lfs\n")
    (code / "data.txt").write_text("2\n")
    changes = look(code)[1]
    assert changes is not None
    assert set(changes.left_out) == {"sub", "data.txt"}
    assert b"layers = 2" in changes.patch


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://user:token@github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://token@github.com/a/b?access_token=x#y", "https://github.com/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("ssh://git@host:22/a", "ssh://git@host:22/a"),
        ("ssh://git:pw@host/a", "ssh://host/a"),
        ("me@host:a", "host:a"),
        ("/srv/code", "/srv/code"),
    ],
)
def test_the_address_of_a_remote_has_no_credentials(address: str, kept: str) -> None:
    assert without_credentials(address) == kept


def test_git_has_a_directory_in_place_of_settings_where_asynctrack_is_installed() -> None:
    from asynctrack.provenance.git_command import NO_SETTINGS

    assert Path(NO_SETTINGS, "config").is_file()
    assert Path(NO_SETTINGS, "refs").is_dir()
    assert sys.modules[Git.__module__].__file__ is not None
