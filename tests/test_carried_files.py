"""Carried files: what was logged by its path is in the merged run, as it was when it was copied, or it is said why not; whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector_server import Answer, CollectorProcess, ask, bring, collector, file_of_tokens, name_of, project, serving
from merged_rings import assert_merged
from simulated_hosts.proxy import Proxy
from support import wait_until, workers

import asynctrack
from asynctrack.backends.base import Retry
from asynctrack.backends.collector import FILE_BYTES, Collector
from asynctrack.carriers import wire
from asynctrack.carriers.cutter import Cutter
from asynctrack.carriers.file_wire import PlacedMedium, Placing, SentFile, number_in, problem_of, target_in
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.message import Place
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.delivery.carried_files import CarriedFiles, FilesFirst
from asynctrack.delivery.reports import Reports
from asynctrack.errors import InvalidSettings
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.layout import Position
from asynctrack.records.media_types import Media, media_in
from asynctrack.testing import JournaledRun, deliver_in_process
from asynctrack.worker.delivery_supervisor import SupervisedProcess

__all__ = ["collector", "project"]  # fixtures

TOKEN = "a-token-of-one-user"
IMAGE = f"media/images/{'0' * 20}.png"
FOLDER = f"media/artifacts/{'1' * 20}"
JOURNAL = "5" * 32


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One with a token and small limits."""
    directory = tmp_path_factory.mktemp("strict")
    tokens = file_of_tokens(directory, f"{TOKEN} mine*")
    limits = ["--max-message", "20K", "--max-file", "30K"]
    with serving(directory / "runs", "--tokens", tokens, *limits) as found:
        yield found


def put(url: str, name: PartName, content: bytes, part: slice = slice(None), sha256: str = "", **how: Any) -> Answer:
    """Send bytes of a file."""
    target = f"{wire.path_of(name)}/files/{sha256 or sha(content)}?journal={how.pop('journal', JOURNAL)}"
    chunk = content[part]
    return ask(url, "PUT", f"{target}&offset={part.start or 0}&size={how.pop('size', len(content))}", chunk, **how)


def place(url: str, name: PartName, medium: PlacedMedium, **how: Any) -> Answer:
    target = f"{wire.path_of(name)}/media?journal={how.pop('journal', JOURNAL)}"
    return ask(url, "POST", target, msgspec.json.encode(medium), **how)


def lacks(answer: Answer) -> dict[str, int]:
    assert answer.status == 200, answer
    return msgspec.json.decode(answer.body, type=Placing).lacks


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def medium_of(content: bytes, path: str = IMAGE, name: str = "") -> PlacedMedium:
    return PlacedMedium(path, {name: SentFile(sha(content), len(content))})


# What a server takes


def test_file_that_came_in_pieces_is_there_when_it_is_whole(collector: CollectorProcess, project: str) -> None:
    name, content = PartName(project, "r", "a"), os.urandom(3000)
    run = collector.directory / project / "r"
    assert lacks(place(collector.url, name, medium_of(content))) == {sha(content): 0}
    assert put(collector.url, name, content, slice(0, 1000)).status == 204
    assert lacks(place(collector.url, name, medium_of(content))) == {sha(content): 1000}
    assert put(collector.url, name, content, slice(1000, 3000)).status == 204
    assert not (run / IMAGE).exists()
    assert lacks(place(collector.url, name, medium_of(content))) == {}
    assert (run / IMAGE).read_bytes() == content


def test_bytes_behind_a_gap_are_refused_and_it_is_said_which_come_next(
    collector: CollectorProcess, project: str
) -> None:
    name, content = PartName(project, "r", "a"), os.urandom(3000)
    put(collector.url, name, content, slice(0, 1000))
    answer = put(collector.url, name, content, slice(2000, 3000))
    assert (answer.status, answer.code) == (412, "incomplete")
    found = wire.refusal_in(answer.body)
    assert found is not None
    assert found.seen == 1000
    assert put(collector.url, name, content, slice(500, 3000)).status == 204  # what is there may come again
    assert lacks(place(collector.url, name, medium_of(content))) == {}


def test_file_with_a_wrong_hash_never_counts(collector: CollectorProcess, project: str) -> None:
    name, content = PartName(project, "r", "a"), os.urandom(2000)
    put(collector.url, name, content, slice(0, 1000))
    damaged = content[:1000] + bytes(1000)
    answer = put(collector.url, name, damaged, slice(1000, 2000), sha(content))
    assert (answer.status, answer.code) == (412, "incomplete")
    assert lacks(place(collector.url, name, medium_of(content))) == {sha(content): 0}
    assert not list((collector.directory / project / "r").rglob("*.png"))


def test_same_content_comes_once_and_takes_the_room_of_one_file(collector: CollectorProcess, project: str) -> None:
    content, other = os.urandom(2000), f"media/images/{'2' * 20}.png"
    put(collector.url, PartName(project, "r", "a"), content)
    assert lacks(place(collector.url, PartName(project, "r", "a"), medium_of(content))) == {}
    assert lacks(place(collector.url, PartName(project, "r", "b"), medium_of(content, other), journal="6" * 32)) == {}
    run = collector.directory / project / "r"
    assert (run / other).read_bytes() == content
    assert (run / other).stat().st_ino == (run / IMAGE).stat().st_ino


def test_file_without_bytes_is_a_file(collector: CollectorProcess, project: str) -> None:
    name = PartName(project, "r", "a")
    assert lacks(place(collector.url, name, medium_of(b""))) == {sha(b""): 0}
    assert put(collector.url, name, b"").status == 204
    assert lacks(place(collector.url, name, medium_of(b""))) == {}
    assert (collector.directory / project / "r" / IMAGE).read_bytes() == b""


def test_artifact_has_its_folders(collector: CollectorProcess, project: str) -> None:
    name, contents = PartName(project, "r", "a"), {"a": b"A", "d/e/b": b"B", "d/same": b"A"}
    files = {inside: SentFile(sha(content), len(content)) for inside, content in contents.items()}
    for content in (b"A", b"B"):
        put(collector.url, name, content)
    assert lacks(place(collector.url, name, PlacedMedium(FOLDER, files))) == {}
    folder = collector.directory / project / "r" / FOLDER
    assert {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == contents


def test_why_there_is_no_file_is_kept_until_there_is_one(collector: CollectorProcess, project: str) -> None:
    name, run = PartName(project, "r", "a"), collector.directory / project / "r"
    assert lacks(place(collector.url, name, PlacedMedium(IMAGE, missing="it is a:/x\x1b[31m"))) == {}
    assert (run / f"{IMAGE}.missing").read_text() == "it is a:/x\N{REPLACEMENT CHARACTER}[31m"
    put(collector.url, name, b"found")
    assert lacks(place(collector.url, name, medium_of(b"found"))) == {}
    assert (run / IMAGE).read_bytes() == b"found"


def test_another_file_of_the_same_name_size_and_time_stays_and_it_is_said(
    collector: CollectorProcess, project: str
) -> None:
    name = PartName(project, "r", "a")
    put(collector.url, name, b"one")
    place(collector.url, name, medium_of(b"one"))
    answer = place(collector.url, PartName(project, "r", "b"), medium_of(b"two"), journal="6" * 32)
    assert msgspec.json.decode(answer.body, type=Placing) == Placing(differs=True)
    assert (collector.directory / project / "r" / IMAGE).read_bytes() == b"one"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("media/images/../../../x.png", ""),
        ("/etc/passwd", ""),
        (f"media/{'0' * 20}", ""),
        (f"media/images/{'0' * 20}.png/x", ""),
        (f"media/images/{'0' * 20}.png\n", ""),
        (f"journal/{'0' * 20}", ""),
        (IMAGE, "x"),
        (FOLDER, ""),
        (FOLDER, "../x"),
        (FOLDER, "/x"),
        (FOLDER, "a//b"),
        (FOLDER, "a/./b"),
        (FOLDER, "a\0b"),
        (FOLDER, "x" * 300),
    ],
)
def test_names_that_lead_elsewhere_are_refused(collector: CollectorProcess, path: str, name: str) -> None:
    part = PartName("mine-names", "r", "a")
    put(collector.url, part, b"evil")
    before = sorted(collector.directory.rglob("*"))
    answer = place(collector.url, part, medium_of(b"evil", path, name))
    assert (answer.status, answer.code) == (400, "garbage")
    assert sorted(collector.directory.rglob("*")) == before


@pytest.mark.parametrize(
    "medium",
    [
        PlacedMedium(IMAGE),
        PlacedMedium(IMAGE, {"": SentFile("0" * 63, 1)}),
        PlacedMedium(IMAGE, {"": SentFile("0" * 64, -1)}),
        PlacedMedium(IMAGE, {"": SentFile("0" * 64, 1)}, "and why there is none"),
    ],
)
def test_media_that_are_none_are_refused(medium: PlacedMedium) -> None:
    assert problem_of(medium) is not None


def test_two_files_of_an_artifact_that_cannot_lie_beside_each_other_are_refused(
    collector: CollectorProcess, project: str
) -> None:
    name, one = PartName(project, "r", "a"), SentFile(sha(b"A"), 1)
    put(collector.url, name, b"A")
    answer = place(collector.url, name, PlacedMedium(FOLDER, {"a": one, "a/b": one}))
    assert (answer.status, answer.code) == (400, "garbage")
    assert not list((collector.directory / project / "r" / "media" / "artifacts").iterdir())


@pytest.mark.parametrize(
    "path",
    ["/v1/p/r/a/files/xyz", f"/v1/p/r/a/files/{'A' * 64}", "/v1/p/r/a/files", "/v1/p/../a/media", "/v1/p/r/media"],
)
def test_paths_that_name_no_file_are_none(path: str) -> None:
    assert target_in(path) is None


@pytest.mark.parametrize("text", ["", "-1", "1.0", "\N{ARABIC-INDIC DIGIT ONE}", "1" * 19, "1\n"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    assert number_in(text) is None


def test_file_that_is_too_large_is_refused_before_it_comes(strict: CollectorProcess, project: str) -> None:
    name = PartName(project, "r", "a")
    answer = place(strict.url, name, PlacedMedium(IMAGE, {"": SentFile("0" * 64, 31 << 10)}), token=TOKEN)
    assert (answer.status, answer.code) == (413, "too_large")
    assert "--max-file" in answer.error
    assert put(strict.url, name, b"x", size=31 << 10, token=TOKEN).code == "too_large"


@pytest.mark.system
def test_files_count_for_what_a_run_may_have_also_of_an_earlier_collector(tmp_path: Path) -> None:
    name, contents, answers = PartName("p", "r", "a"), [bytes([number]) * 2000 for number in range(3)], []
    for some in (contents[:2], contents[2:]):
        with serving(tmp_path / "runs", "--max-run-bytes", "5000") as collector:
            answers += [put(collector.url, name, content) for content in some]
    assert [answer.status for answer in answers] == [204, 204, 413]
    found = wire.refusal_in(answers[-1].body)
    assert found is not None
    assert found.limit == "file"


def test_token_writes_files_of_its_projects_only(strict: CollectorProcess) -> None:
    name = PartName("theirs", "r", "a")
    assert put(strict.url, name, b"x").code == "no_token"
    assert put(strict.url, name, b"x", token=TOKEN).code == "not_your_project"
    assert place(strict.url, name, medium_of(b"x"), token=TOKEN).code == "not_your_project"
    assert not (strict.directory / "theirs").exists()


def test_files_of_a_host_come_from_the_journal_that_began_its_part(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    part = part_with(tmp_path, project, {"x": 1})
    bring(collector.url, part)
    name = name_of(part)
    assert put(collector.url, name, b"x", journal=id_of(part)).status == 204
    assert put(collector.url, name, b"y").code == "refused"
    assert place(collector.url, name, medium_of(b"x")).code == "refused"


def test_files_never_go_into_a_run_that_nobody_merged(collector: CollectorProcess, project: str) -> None:
    part_with(collector.directory, project, {"x": 1}).rename(collector.directory / project / "r")
    assert put(collector.url, PartName(project, "r", "a"), b"x").code == "refused"
    assert not (collector.directory / project / "r" / "incoming").exists()


@pytest.mark.system
def test_killed_collector_goes_on_with_the_part_of_a_file_that_it_has(tmp_path: Path) -> None:
    name, content = PartName("p", "r", "a"), os.urandom(3000)
    with serving(tmp_path / "runs") as collector:
        put(collector.url, name, content, slice(0, 1000))
        collector.kill()
    with serving(tmp_path / "runs") as collector:
        assert lacks(place(collector.url, name, medium_of(content))) == {sha(content): 1000}


@pytest.mark.system
def test_what_is_left_of_files_is_removed_when_it_is_old_or_the_run_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path / "runs") as collector:
        part = part_with(tmp_path / "parts", "p", {"x": 1})
        put(collector.url, name_of(part), b"x", journal=id_of(part))
        for run in ("old", "new"):
            put(collector.url, PartName("p", run, "a"), b"x")
        bring(collector.url, part)
        collector.kill()
    os.utime(tmp_path / "runs" / "p" / "old" / "incoming", (0, 0))
    with serving(tmp_path / "runs"):
        wait_until(lambda: not (tmp_path / "runs" / "p" / "old").exists(), "what never began is removed")
        wait_until(lambda: not (tmp_path / "runs" / "p" / "r" / "incoming").exists(), "what has ended keeps none")
        assert (tmp_path / "runs" / "p" / "new" / "incoming").exists()


# What a host sends


def part_with(directory: Path, project: str, *records: Mapping[str, Any], host: str = "a") -> Path:
    """A host's part of a run with these records."""
    path = directory / project / f"r@{host}"
    said = {"host": host, "pid": 100, "writer": f"on-{host}", "joins": True}
    with JournaledRun(path, config={}, environment=said, run_id="r") as run:
        for record in records:
            run.log(dict(record))
            run.journal()
        run.end_ring()
        run.end("finished")
    return path


def id_of(part: Path) -> str:
    with contextlib.closing(Cutter(part / "journal", Place())) as cutter:
        return cutter.journal_id.hex()


class Sender:
    """Brings a part to a collector, as the delivery does."""

    def __init__(self, url: str, part: Path, most_bytes: int = FILE_BYTES) -> None:
        name, reports = name_of(part), Reports(part, "collector", Collector(url=url))
        self.files = CarriedFiles(part, name.host, HTTPCarrier(url, name), most_bytes, reports)
        self.publisher = JournalPublisher(part / "journal", self.files)

    def send(self) -> None:
        """Bring all there is."""
        with contextlib.closing(self.publisher), contextlib.closing(self.files):
            while True:
                with contextlib.suppress(FilesFirst, Retry):
                    if self.files.waits:
                        self.files.advance(Position())
                    elif self.publisher.advance() is None:
                        return


def send(url: str, part: Path, most_bytes: int = FILE_BYTES) -> None:
    """Bring all of a part to a collector."""
    Sender(url, part, most_bytes).send()


def merged_media(collector: CollectorProcess, project: str) -> list[Media]:
    """The media of all records of the merged run, in order."""
    run = asynctrack.open_run(collector.directory / project / "r")
    return [media for record in run.records() for media in media_in(record.data)]


def test_files_of_all_kinds_are_in_the_merged_run(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    (tmp_path / "x.html").write_bytes(b"<p>")
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "model").write_bytes(os.urandom(1_200_000))
    image = asynctrack.Image(tmp_path / "x.png")
    table = asynctrack.Table(columns=["shown"], data=[[image]])
    values = [image, asynctrack.Html(tmp_path / "x.html"), asynctrack.Artifact("m", path=tmp_path / "d"), table]
    part = part_with(tmp_path, project, *({"nested": {"it": value}} for value in values))
    send(collector.url, part)
    found = merged_media(collector, project)
    assert [media.kind for media in found] == ["image", "html", "artifact", "image", "table"]
    assert [found[0].read(), found[1].read(), found[3].read()] == [b"picture", b"<p>", b"picture"]
    assert found[2].file is not None
    assert (found[2].file / "e" / "model").read_bytes() == (tmp_path / "d" / "e" / "model").read_bytes()


def test_record_comes_to_the_collector_when_its_files_are_there(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    sender = Sender(collector.url, part_with(tmp_path, project, {"it": asynctrack.Image(tmp_path / "x.png")}))
    run = collector.directory / project / "r"
    with pytest.raises(FilesFirst):
        sender.publisher.advance()
    while sender.files.waits:
        sender.files.advance(Position())
    assert [path.read_bytes() for path in run.glob("media/images/*")] == [b"picture"]
    assert not (run / "journal").exists()
    sender.send()
    assert [media.read() for media in merged_media(collector, project)] == [b"picture"]


def test_same_file_of_two_hosts_is_in_both_their_records(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (tmp_path / "shared.png").write_bytes(b"shared")
    for host in "ab":
        part = part_with(tmp_path, project, {"it": asynctrack.Image(tmp_path / "shared.png")}, host=host)
        send(collector.url, part)
    assert [media.read() for media in merged_media(collector, project)] == [b"shared"] * 2


def test_each_record_has_the_content_that_its_path_had(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    """The collector is away while the file is written again and again: the host keeps each content."""
    path, part = tmp_path / "checkpoint.pt", tmp_path / project / "r@a"
    away = Sender("http://127.0.0.1:1", part).files
    with JournaledRun(part, config={}, environment={"host": "a", "joins": True}, run_id="r") as run:
        for content in (b"one", b"two!", b"three"):
            path.write_bytes(content)
            run.log({"it": asynctrack.Artifact("checkpoint", path=path)})
            run.journal()
            away.keep(Position())
        run.end_ring()
        run.end("finished")
    send(collector.url, part)
    files = [media.file for media in merged_media(collector, project)]
    assert [file and (file / "checkpoint.pt").read_bytes() for file in files] == [b"one", b"two!", b"three"]


def test_what_cannot_be_sent_is_said_and_its_record_goes_on(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    paths = {name: tmp_path / name for name in ("gone", "changed", "pipe", "folder", "large")}
    for path in paths.values():
        path.write_bytes(b"was here")
    paths["large"].write_bytes(bytes(1001))
    part = part_with(tmp_path, project, *({name: asynctrack.Image(path)} for name, path in paths.items()), {"last": 1})
    for name in ("gone", "pipe", "folder"):
        paths[name].unlink()
    os.mkfifo(paths["pipe"])
    paths["folder"].mkdir()
    paths["changed"].write_bytes(b"is other")
    os.utime(paths["changed"], ns=(1, 1))
    send(collector.url, part, most_bytes=1000)
    media = merged_media(collector, project)
    assert [one.file for one in media] == [None] * 5
    missing = [str(one.missing) for one in media]
    assert all("a" in why and str(path) in why for why, path in zip(missing, paths.values(), strict=True)), missing
    assert f"a:{paths['large']}" in missing[4]
    assert "1001 bytes" in missing[4]
    run = asynctrack.open_run(collector.directory / project / "r")
    assert run.last_record() is not None
    assert run.status == "finished"


def test_file_that_the_collector_does_not_take_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(bytes(2000))
    part = part_with(tmp_path, "p", {"it": asynctrack.Image(tmp_path / "x.png")})
    with serving(tmp_path / "runs", "--max-file", "1000") as collector:
        send(collector.url, part)
        (media,) = merged_media(collector, "p")
        assert f"a:{tmp_path / 'x.png'}" in str(media.missing)


def test_files_that_a_collector_has_lost_are_sent_again(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, project, {"it": asynctrack.Image(tmp_path / "x.png")})
    sender = Sender(collector.url, part)
    sender.send()
    shutil.rmtree(collector.directory / project / "r")
    (tmp_path / "x.png").unlink()
    sender.send()
    assert [media.read() for media in merged_media(collector, project)] == [b"picture"]


def test_merged_runs_deliveries_leave_the_files_of_hosts_as_they_are(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, project, {"it": asynctrack.Image(tmp_path / "x.png")})
    send(collector.url, part)
    (tmp_path / "x.png").unlink()
    run = collector.directory / project / "r"
    subprocess.run([sys.executable, "-m", "asynctrack", "sync", run, "--to", "jsonl"], check=True, timeout=60)
    said = msgspec.json.decode((run / "metrics.jsonl").read_bytes().splitlines()[0])
    assert "missing" not in said["it"]
    assert (run / said["it"]["path"]).read_bytes() == b"picture"


# Whatever is killed


_SENDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_carried_files import send
send(sys.argv[2], Path(sys.argv[3]))
"""


def sending(url: str, part: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SENDER, os.path.dirname(__file__), url, os.fspath(part)])


def large_part(directory: Path) -> tuple[Path, bytes]:
    content = os.urandom(24 << 20)
    (directory / "model.pt").write_bytes(content)
    return part_with(directory, "p", {"it": asynctrack.Artifact("m", path=directory / "model.pt")}), content


def come_so_far(run: Path) -> int:
    """How much of a file has come, that is not whole."""
    return sum(path.stat().st_size for path in run.glob("incoming/*.part"))


def assert_whole(collector: CollectorProcess, content: bytes) -> None:
    (media,) = merged_media(collector, "p")
    assert media.file is not None
    assert (media.file / "model.pt").read_bytes() == content


@pytest.mark.system
def test_killed_host_goes_on_where_the_file_was(tmp_path: Path) -> None:
    part, content = large_part(tmp_path)
    run = tmp_path / "runs" / "p" / "r"
    with serving(tmp_path / "runs") as collector:
        before = 0
        for _ in range(2):
            with sending(collector.url, part) as process:
                wait_until(lambda: come_so_far(run) > before or process.poll() is not None, "a part comes")  # noqa: B023
                process.kill()
            before = come_so_far(run)
        with sending(collector.url, part) as process:
            assert process.wait(60) == 0
        assert_whole(collector, content)


@pytest.mark.system
def test_host_goes_on_with_a_file_when_a_killed_collector_is_back(tmp_path: Path) -> None:
    part, content = large_part(tmp_path)
    run = tmp_path / "runs" / "p" / "r"
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    with sending(f"http://127.0.0.1:{port}", part) as process:
        before = 0
        for _ in range(2):
            with serving(tmp_path / "runs", port=port) as collector:
                wait_until(lambda: come_so_far(run) > before or process.poll() is not None, "a part comes")  # noqa: B023
                collector.kill()
            before = come_so_far(run)
        with serving(tmp_path / "runs", port=port) as collector:
            assert process.wait(60) == 0
            assert_whole(collector, content)


@pytest.mark.system
def test_delivery_process_that_is_killed_within_a_file_goes_on_with_it(tmp_path: Path) -> None:
    """The process that a host's worker starts, by a line so slow that each of them is killed with a part of the file on its way."""
    content = os.urandom(24 << 20)
    (tmp_path / "model.pt").write_bytes(content)
    model = asynctrack.Artifact("m", path=tmp_path / "model.pt")
    part = part_with(tmp_path, "p", {"before": 1}, {"it": model}, {"after": 1})
    run, killed = tmp_path / "runs" / "p" / "r", {0: 0}

    def kill(process: SupervisedProcess, cursor: Cursor) -> None:
        here = come_so_far(run)
        if len(killed) < 4 and here > max(killed.values()) and process.group not in (None, *killed):
            os.killpg(process.group, signal.SIGKILL)
            killed[process.group] = here

    with serving(tmp_path / "runs") as collector, contextlib.closing(Proxy(collector.port)) as proxy:
        proxy.slow_down(6e6)
        cursor = deliver_in_process(part, Collector(url=f"http://{proxy.address}"), poll=kill, timeout_s=50)
        assert [0 < here < len(content) for here in killed.values()] == [False, True, True, True]
        assert (cursor.closed, cursor.delivered) == (True, 3)
        assert_whole(collector, content)
    assert [[*record.data] for record in asynctrack.open_run(run).records()] == [["before"], ["it"], ["after"]]
    assert_merged(run, [part])


_SCRIPT = """
import asynctrack, pathlib, sys
pathlib.Path("x.png").write_bytes(b"picture")
pathlib.Path("large").write_bytes(bytes(2000))
run = asynctrack.init("p", dir=sys.argv[1], backends=[])
run.log({"it": asynctrack.Image("x.png")})
run.log_artifact("large")
run.finish()
"""


@pytest.mark.system
def test_script_that_logs_paths_has_its_files_in_the_merged_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "p" / "job"
    with serving(tmp_path / "runs") as collector:
        said = {"ASYNCTRACK_COLLECT": collector.url, "ASYNCTRACK_RUN_ID": "job", "ASYNCTRACK_HOST": "a"}
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, tmp_path / "hosts"],
            env={**os.environ, **said, "ASYNCTRACK_COLLECT_FILE_BYTES": "1K"},
            cwd=tmp_path,
            check=True,
            timeout=60,
        )
        collector.wait_for("ended", run=str(run))
        found = asynctrack.open_run(run)
        (image,) = [media for record in found.records() for media in media_in(record.data)]
        artifact = found.summary["artifacts/large"]
        assert image.read() == b"picture"
        assert f"a:{tmp_path / 'large'}" in (run / f"{artifact['path']}.missing").read_text()
        assert collector.stop() == 0
    assert not (run / "incoming").exists()


_WRITES_AGAIN = """
import asynctrack, pathlib, sys, time
folder, checkpoint = pathlib.Path(sys.argv[1]), pathlib.Path("checkpoint.pt")
run = asynctrack.init("p", dir=folder, backends=[], finish_timeout_s=0.1)
for number in range(4):
    checkpoint.write_bytes(b"%d" % number)
    run.log({"it": asynctrack.Artifact("checkpoint", path=checkpoint)})
    while len(list(folder.glob("p/*/media/artifacts/[!.]*"))) <= number:  # what is not whole yet begins with a dot
        time.sleep(0.01)
"""


@pytest.mark.system
def test_host_keeps_what_a_path_had_while_the_collector_is_away(tmp_path: Path, shm: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
    said = {"ASYNCTRACK_COLLECT": url, "ASYNCTRACK_RUN_ID": "r", "ASYNCTRACK_HOST": "a"}
    script = [sys.executable, "-c", _WRITES_AGAIN, tmp_path / "hosts"]
    try:
        subprocess.run(script, env={**os.environ, **said}, cwd=tmp_path, check=True, timeout=40)
    finally:
        for pid in workers(shm):  # which goes on to wait for the collector
            os.kill(pid, signal.SIGKILL)
    with serving(tmp_path / "runs") as collector:
        send(collector.url, tmp_path / "hosts" / "p" / "r@a")
        files = [media.file for media in merged_media(collector, "p")]
    assert [file and (file / "checkpoint.pt").read_bytes() for file in files] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("given", ["much", "-1", "1 2"])
def test_size_in_the_environment_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT_FILE_BYTES", given)
    with pytest.raises(InvalidSettings, match="ASYNCTRACK_COLLECT_FILE_BYTES"):
        asynctrack.init("p", id="r", dir=tmp_path, collect="http://127.0.0.1:1", backends=[])
