"""Values: images, histograms, tables, texts and artifacts are copied by `log()`, journaled as all else, and stored once by whichever delivery comes first."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy
import polars
import pytest
from cli_support import said_here
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from support import DEADLINE_S, ended, lines, manifest, records, start, wait_until
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator

import asynctrack
from asynctrack import Artifact, Histogram, Html, Image, JSONLines, Media, Memory, Table, TensorBoard, Text
from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records import png
from asynctrack.records.codec import decode_record, encode_any
from asynctrack.records.media_types import Value
from asynctrack.testing import JournaledRun, deliver

pytestmark = pytest.mark.usefixtures("version")

PIXELS = numpy.arange(4 * 5 * 3, dtype="u1").reshape(4, 5, 3)


@pytest.fixture(autouse=True)
def surroundings(own_state: Path) -> None:
    """A key of this test's own, by which a delivery knows whose files they are."""


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with JournaledRun(tmp_path / "p" / "r") as run:
        yield run


def read(value: Any) -> Any:
    """What a reader gets of a value that is logged."""
    return decode_record(encode_any({"value": value})[0], 0).data["value"]


def media(run: Path) -> list[str]:
    """What lies under `media/`, and is no folder."""
    return sorted(str(path.relative_to(run)) for path in run.glob("media/**/*") if path.is_file())


def delivered(run: JournaledRun) -> list[dict[str, Any]]:
    """The lines of a run's JSON Lines, delivered up to here."""
    run.journal()
    deliver(run.path, JSONLines())
    return lines(run.path)


# What is taken, and what is refused at once


@pytest.mark.parametrize(
    ("given", "pixels"),
    [
        (PIXELS, PIXELS),
        (PIXELS[:, :, 0], PIXELS[:, :, 0]),
        (PIXELS[:, :, :1], PIXELS[:, :, 0]),
        (PIXELS[::-1, ::2], PIXELS[::-1, ::2]),
        (numpy.dstack([PIXELS, PIXELS[:, :, 0]]), numpy.dstack([PIXELS, PIXELS[:, :, 0]])),
        (PIXELS / 255, PIXELS),
        (PIXELS.astype("f4") / 255, PIXELS),
        (PIXELS.astype("i8") * 10, numpy.minimum(PIXELS.astype("i8") * 10, 255)),
        (PIXELS > 5, (PIXELS > 5) * 255),
        (PIXELS.astype("f8") * 4, numpy.minimum(PIXELS.astype("f8") * 4, 255)),
        (numpy.array([[-0.2, 0.6]]), [[102, 204]]),
        (numpy.array([[-2.0, 2.0]]), [[0, 255]]),
        (numpy.array([[float("nan"), 1.0]]), [[0, 255]]),
        (Pillow.fromarray(PIXELS), PIXELS),
        (Pillow.fromarray(PIXELS).convert("L"), numpy.asarray(Pillow.fromarray(PIXELS).convert("L"))),
        (Pillow.fromarray(PIXELS).convert("RGBA"), numpy.dstack([PIXELS, numpy.full((4, 5), 255)])),
        (Pillow.fromarray(PIXELS[:, :, 0] > 5), (PIXELS[:, :, 0] > 5) * 255),
    ],
)
def test_image_has_the_pixels_that_it_was_given(given: Any, pixels: Any) -> None:
    image = read(Image(given, caption="a picture"))
    drawn = numpy.asarray(Pillow.open(io.BytesIO(image.read())))
    assert drawn.tolist() == numpy.asarray(pixels).astype("u1").tolist()
    assert numpy.asarray(image).tolist() == drawn.tolist()
    assert (image.kind, image.format, image.caption) == ("image", "png", "a picture")
    assert (image.meta["height"], image.meta["width"]) == drawn.shape[:2]


class Tensor:
    """As much of torch's as an image looks at."""

    dtype = "torch.float32"

    def __init__(self, array: Any) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


def test_tensor_may_have_its_channels_first() -> None:
    assert numpy.asarray(read(Image(Tensor(PIXELS.transpose(2, 0, 1))))).tolist() == PIXELS.tolist()


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]), st.data())
def test_png_is_what_pillow_reads(width: int, height: int, channels: int, data: st.DataObject) -> None:
    size = width * height * channels
    pixels = data.draw(st.binary(min_size=size, max_size=size))
    drawn = Pillow.open(io.BytesIO(png.encode(pixels, width, height)))
    assert drawn.tobytes() == pixels
    assert drawn.size == (width, height) == png.size_of(png.encode(pixels, width, height))


@pytest.mark.system
def test_figure_is_drawn_when_the_image_is_made() -> None:
    figures = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
    figure = figures.Figure(figsize=(2, 1), dpi=50)
    axes = figure.add_subplot()
    axes.plot([1, 2])
    drawn = Image(figure)
    for image in (read(drawn), read(Image(axes)), read(figure)):
        assert Pillow.open(io.BytesIO(image.read())).size == (100, 50) == (image.meta["width"], image.meta["height"])
    axes.plot([2, 1])
    assert read(Image(figure)).path != read(drawn).path


class Undrawable:
    """Looks like a figure, and is none."""

    def savefig(self, file: Any, **settings: Any) -> None:
        file.write(b"nothing")


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: Image("nowhere.png"), InvalidValue, "the path of a file that exists; got 'nowhere.png'"),
    (lambda: Image(os.curdir), InvalidValue, "the path of a file; got"),
    (lambda: Image(PIXELS.reshape(-1)), InvalidValue, r"height x width.*; got shape \(60,\)"),
    (lambda: Image(numpy.zeros((2, 2, 2))), InvalidValue, r"3 or 4 channels; got shape \(2, 2, 2\)"),
    (lambda: Image(numpy.zeros((0, 3))), InvalidValue, r"got shape \(0, 3\)"),
    (lambda: Image(numpy.array([["a"]])), InvalidValueType, "an array of numbers; got dtype <U1"),
    (lambda: Image(7), InvalidValueType, "an array, an image of Pillow, .*; got int: 7"),
    (lambda: Image(Undrawable()), InvalidValue, "a figure that draws a PNG; got"),
    (lambda: Histogram(), InvalidValue, "values or np_histogram"),
    (lambda: Histogram("text"), InvalidValueType, "numbers; got 'text'"),
    (lambda: Histogram([1], num_bins=0), InvalidValue, "num_bins from 1 to 512; got 0"),
    (lambda: Histogram(np_histogram=([1], [1])), InvalidValue, "one edge more than counts; got 1 counts, 1 edges"),
    (lambda: Histogram(np_histogram=([1],)), InvalidValue, "counts, edges"),
    (lambda: Table(["a"], [[1, 2]]), InvalidValue, r"rows of 1 cells, one a column; got 2: \[1, 2\]"),
    (lambda: Table(["a"], "x"), InvalidValueType, "rows of cells, or a data frame; got str: 'x'"),
    (lambda: Table(["a"], ["x"]), InvalidValueType, "rows that are sequences of cells"),
    (lambda: Table(["a"]).add_data(1, 2), InvalidValue, "rows of 1 cells"),
    (lambda: Table(["a"], [[1]]).add_column("b", [1, 2]), InvalidValue, "1 cells, one a row; got 2"),
    (lambda: Text(7), InvalidValueType, "a text; got int: 7"),  # type: ignore[arg-type]  # the mistake
    (lambda: Html(7), InvalidValueType, "a text, a path or an open file; got int: 7"),
    (lambda: Html("nowhere.html"), InvalidValue, "the path of a file that exists"),
    (lambda: Artifact("a", path="nowhere"), InvalidValue, "the path of a file that exists; got 'nowhere'"),
    (lambda: Artifact("a").add_dir("nowhere"), InvalidValue, "the path of a folder that exists"),
    (lambda: Artifact("a").add_file(__file__, name="../x"), InvalidValue, "names below the artifact; got '../x'"),
    (lambda: Artifact(7), InvalidValueType, "a name or a path; got 7"),  # type: ignore[arg-type]  # the mistake
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_what_no_value_can_be_made_of_is_refused_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError) == (error is InvalidValueType)


# Histograms and tables


@pytest.mark.parametrize("size", [1, 1000, 70_000])
@pytest.mark.parametrize("listed", [False, True])
def test_histogram_counts_as_numpy_does(size: int, listed: bool) -> None:
    values = numpy.random.default_rng(0).integers(-500, 500, size) / 8
    odd = numpy.concatenate([values, [float("nan"), float("inf")]])
    counts, edges = read(Histogram(odd.tolist() if listed else odd, num_bins=10)).bins()
    wanted = numpy.histogram(values, 10)
    assert numpy.allclose(edges, wanted[1])
    assert sum(counts) == size
    assert max(abs(a - b) for a, b in zip(counts, wanted[0].tolist(), strict=True)) <= size // 1000


def test_large_histogram_takes_little_of_the_queue() -> None:
    assert len(encode_any({"h": Histogram(numpy.zeros(1_000_000))})[0]) < 2000


@pytest.mark.parametrize("values", [[], [float("nan")], [3, 3]])
def test_histogram_of_little_has_edges(values: list[float]) -> None:
    counts, edges = read(Histogram(values)).bins()
    assert sum(counts) == len([value for value in values if value == value])
    assert edges == sorted(set(edges))


def test_histogram_is_in_the_line_itself(run: JournaledRun) -> None:
    run.log({"h": Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))})
    (line,) = delivered(run)
    assert line["h"] == {"_type": "histogram", "values": [1, 2], "bins": [0.0, 0.5, 1.0]}
    assert media(run.path) == []


def test_table_keeps_its_cells(run: JournaledRun) -> None:
    table = Table(["step", "loss", "what", "seen"])
    table.add_data(1, float("nan"), "a", Image(PIXELS))
    table.add_data(numpy.int64(2), numpy.float32(0.5), object, None)
    table.add_column("more", [True, 1 << 70])
    run.log({"t": table})
    (line,) = delivered(run)
    columns = ["step", "loss", "what", "seen", "more"]
    assert line["t"] == {"_type": "table", "path": line["t"]["path"], "columns": columns, "rows": 2, "format": "json"}
    stored = json.loads((run.path / line["t"]["path"]).read_text())
    assert stored["columns"] == columns
    (first, second) = stored["data"]
    image = first.pop(3)
    assert first == [1, "NaN", "a", True]
    assert (image["_type"], (run.path / image["path"]).exists()) == ("image", True)
    assert second == [2, 0.5, "<class 'object'>", None, 1 << 70]
    assert table.get_column("step") == [1, 2]


def test_table_takes_data_frames_and_arrays() -> None:
    frame = polars.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    for table in (Table(dataframe=frame), Table(data=frame.to_pandas()), Table(["a", "b"], [[1, "x"], (2, "y")])):
        found = read(table)
        assert (list(found.meta["columns"]), found.content) == (["a", "b"], [[1, "x"], [2, "y"]])
    assert read(Table(data=numpy.eye(2))).meta["columns"] == ["0", "1"]


# From `log()` to the file


EACH: dict[str, Any] = {
    "image": lambda: Image(PIXELS),
    "table": lambda: Table(["a"], [[1]]),
    "html": lambda: Html("<p>x</p>"),
    "text": lambda: Text("a long text"),
}


def test_values_are_files_of_the_run_and_references_in_its_lines(run: JournaledRun) -> None:
    run.log({kind: make() for kind, make in EACH.items()} | {"nested": {"list": [Image(PIXELS), Image(PIXELS // 2)]}})
    (line,) = delivered(run)
    found = asynctrack.open_run(run.path)
    (record,) = found.records()
    for kind in EACH:
        value = record.data[kind]
        assert isinstance(value, Media)
        assert line[kind] == value.reference() == found.columns()[kind].values[0].reference()
        assert value.file == run.path / line[kind]["path"]
        assert value.file is not None
        assert value.file.read_bytes() == value.read() == value.encode() == found.columns()[kind].values[0].read()
    assert [item["path"] for item in line["nested/list"]] == [item.path for item in record.data["nested"]["list"]]
    assert len(media(run.path)) == len(EACH) + 1  # the first of the list is the image itself
    assert not any(path.stat().st_mode & 0o022 for path in run.path.glob("media/*/*"))


def test_whole_way_of_values_through_a_real_run(shared_host: Path, runs: Path) -> None:
    memory = Memory()
    with asynctrack.init("p", dir=runs, backends=["jsonl", "tensorboard", memory]) as run:
        pixels = PIXELS.copy()
        assert run.log({"image": Image(pixels), "array": pixels})
        pixels[:] = 0  # what was logged stays
        run.summary["best"] = Image(PIXELS, caption="best")
    (line,) = lines(run.path)
    drawn = Pillow.open(run.path / line["image"]["path"])
    assert numpy.asarray(drawn).tolist() == PIXELS.tolist() == line["array"]
    assert numpy.asarray(memory.records[0]["image"]).tolist() == PIXELS.tolist()
    best = manifest(run.path)["summary"]["best"]
    assert best == {**line["image"], "caption": "best"}
    assert media(run.path) == [best["path"]]


@pytest.mark.system
def test_what_was_logged_survives_the_kill_of_its_process(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, numpy, os, sys
run = asynctrack.init("p", id="killed", dir=sys.argv[1])
for i in range(20):
    run.log({"i": i, "image": asynctrack.Image(numpy.full((30, 40), i, "u1"))})
os.kill(os.getpid(), 9)
"""
    with start(script, runs) as child:
        assert child.wait(DEADLINE_S) == -9
    run = runs / "p" / "killed"
    wait_until(lambda: ended(run) and (run / "metrics.jsonl").exists() and len(lines(run)) == 20, "all is delivered")
    assert manifest(run)["status"] == "crashed"
    for i, line in enumerate(lines(run)):
        assert set(Pillow.open(run / line["image"]["path"]).tobytes()) == {i}


def test_the_same_is_stored_once_and_again_where_somebody_has_removed_it(run: JournaledRun) -> None:
    for _ in range(3):
        run.log({"image": Image(PIXELS)})
    run.log({"image": Image(PIXELS, caption="with words")})
    delivered(run)
    (only,) = media(run.path)
    before = (run.path / only).stat()
    deliver(run.path, Memory(), name="memory")
    assert (run.path / only).stat().st_ino == before.st_ino
    (run.path / only).unlink()
    deliver(run.path, JSONLines(file="again.jsonl"), name="again")
    assert media(run.path) == [only]
    assert lines(run.path, "again.jsonl") == lines(run.path)


def test_what_two_deliveries_store_at_once_is_there_once(own_host: Path, runs: Path) -> None:
    backends = [JSONLines(file=f"{i}.jsonl") for i in range(4)]
    with asynctrack.init("p", dir=runs, backends=backends) as run:
        for i in range(50):
            run.log({"image": Image(numpy.full((20, 20), i, "u1"))})
    assert len(media(run.path)) == 50
    assert all(lines(run.path, f"{i}.jsonl") == lines(run.path, "0.jsonl") for i in range(4))


def test_full_disk_holds_the_records_back_and_loses_nothing(
    run: JournaledRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.log({"i": 1, "image": Image(PIXELS)})
    run.journal()
    blocked = run.path / "media"
    blocked.write_text("in the way")  # what a full disk would do: the directory cannot be made
    with pytest.raises(TimeoutError):
        deliver(run.path, JSONLines(), timeout_s=0.5)
    assert not (run.path / "metrics.jsonl").exists() or lines(run.path) == []
    blocked.unlink()
    assert delivered(run)[0]["i"] == 1
    assert len(media(run.path)) == 1


def test_link_in_place_of_the_folder_is_not_followed(run: JournaledRun, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run.path / "media").symlink_to(tmp_path / "elsewhere")
    run.log({"image": Image(PIXELS)})
    run.journal()
    with pytest.raises(TimeoutError):
        deliver(run.path, JSONLines(), timeout_s=0.5)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_record_larger_than_the_queue_says_what_to_do(
    shared_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = Image(numpy.random.default_rng(0).integers(0, 255, (64, 64), "u1"))
    with asynctrack.init("p", dir=runs, queue_bytes=4096) as run:
        assert not run.log({"image": picture})
    assert run.stats().dropped == {"oversize": 1}
    (said,) = [record.getMessage() for record in caplog.records if "dropped: the queue" in record.getMessage()]
    assert "open the run with queue_bytes=16384, or log a large image, page or artifact by the path of its file" in said
    with asynctrack.init("p", dir=runs, queue_bytes=16384) as run:
        assert run.log({"image": picture})


# What is logged by its path


def test_file_is_copied_as_it_is(run: JournaledRun, tmp_path: Path) -> None:
    file = tmp_path / "picture.JPG"
    Pillow.fromarray(PIXELS).save(file, "JPEG")
    run.log({"image": Image(str(file), caption="c"), "page": Html(_page(tmp_path))})
    (line,) = delivered(run)
    assert line["image"]["path"].endswith(".jpg")
    assert (run.path / line["image"]["path"]).read_bytes() == file.read_bytes()
    (record,) = records(run.path)
    file.unlink()
    assert numpy.asarray(record.data["image"]).shape == (4, 5, 3)
    assert (run.path / line["page"]["path"]).read_text() == "<p>page</p>"


def _page(folder: Path) -> Path:
    page = folder / "page.html"
    page.write_text("<p>page</p>")
    return page


@pytest.mark.parametrize("change", ["other", "longer", "gone", "link"])
def test_file_that_has_changed_or_gone_is_said_and_its_record_is_there(
    run: JournaledRun, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"one")
    run.log({"model": Artifact(file), "loss": 0.5})
    run.journal()
    file.unlink()
    if change == "link":
        file.symlink_to("/etc/passwd")
    elif change != "gone":
        file.write_bytes(b"two" if change == "other" else b"three")
        os.utime(file, ns=(1, 1))
    (line,) = delivered(run)
    assert line["loss"] == 0.5
    assert "cannot be read" in line["model"]["missing"] or "has changed since it was logged" in line["model"]["missing"]
    told = f"<artifact model.bin, {line['model']['path']}> of {run.path} has no content"
    wait_until(lambda: told in caplog.text, "it is said")  # on another thread, once a run was opened in this process
    (record,) = records(run.path)
    assert record.data["model"].file is None
    with pytest.raises(FileNotFoundError, match=r"model\.bin"):
        record.data["model"].read()
    file.unlink(missing_ok=True)
    file.write_bytes(b"one")  # back again: what was said stays
    deliver(run.path, JSONLines(file="again.jsonl"), name="again")
    assert lines(run.path, "again.jsonl") == [line]


def test_artifact_has_its_files_by_their_names(run: JournaledRun, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    artifact = Artifact("everything", "dataset", "all of it", {"rows": 3}, path=folder)
    artifact.add_file(folder / "a.txt", name="copies/a")
    run.log({"artifact": artifact})
    (line,) = delivered(run)
    told = {"name": "everything", "type": "dataset", "description": "all of it", "metadata": {"rows": 3}}
    assert {key: line["artifact"][key] for key in told} == told
    root = run.path / line["artifact"]["path"]
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == {"a.txt": "a", "deep/b.txt": "b", "copies/a": "a"}


def test_artifact_whose_files_exclude_each_other_does_not_hold_the_records_back(
    run: JournaledRun, tmp_path: Path
) -> None:
    artifact = Artifact("odd")
    for name in ("a", "a/b"):
        artifact.add_file(__file__, name=name)
    run.log({"odd": artifact})
    run.log({"none": Artifact("empty")})
    odd, empty = delivered(run)
    assert "cannot lie beside each other" in odd["odd"]["missing"]
    assert empty["none"]["missing"] == "it has no files"
    assert list(run.path.glob("media/*/.*")) == []


def test_files_that_somebody_else_has_named_are_not_copied(
    run: JournaledRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    run.log({"stolen": Artifact(secret)})
    run.journal()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    (line,) = delivered(run)
    assert "logged by somebody else" in line["stolen"]["missing"]
    assert not [path for path in run.path.rglob("*") if path.is_file() and path.read_bytes() == b"secret"]


def test_worker_says_in_its_log_what_could_not_be_copied(own_host: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("x")
    artifact = Artifact(tmp_path / "gone.txt")
    (tmp_path / "gone.txt").unlink()
    with asynctrack.init("p", dir=runs) as run:
        run.log({"a": artifact})
    assert "gone.txt cannot be read: No such file or directory" in (run.path / "worker.log").read_text()


# Who reads


@pytest.mark.system
def test_readers_show_short_references(run: JournaledRun) -> None:
    noise = numpy.random.default_rng(0).integers(0, 255, (300, 300, 3), "u1")
    run.log({"image": Image(noise), "table": Table(["a"], [["x" * 100_000]])})
    run.journal()  # nothing is delivered
    run.end()
    found = asynctrack.open_run(run.path)
    assert len(repr(list(found.records()))) < 1000
    assert found.columns()["image"].values[0].content is None
    assert len(str(found.to_polars())) + len(str(found.to_pandas())) + len(str(found.to_arrow())) < 10_000
    for command in (["show"], ["export", "--format", "csv"], ["tail", "--json"]):
        done = said_here(*command, run.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout) < 3000
    assert "image=image 300x300  table=table 1x1" in said_here("tail", run.path).stdout
    with pytest.raises(FileNotFoundError, match="no delivery has stored it"):
        found.columns()["image"].values[0].read()
    (record,) = found.records()
    assert numpy.asarray(record.data["image"]).tolist() == noise.tolist()


def test_tensorboard_shows_images_histograms_and_texts(run: JournaledRun, tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    Pillow.fromarray(PIXELS).save(gone)
    run.log({
        "image": Image(PIXELS), "pair": [Image(PIXELS), Image(PIXELS // 2)], "gone": Image(gone),
        "raw": Histogram(numpy.arange(100.0)), "counted": Histogram(np_histogram=([1, 3], [0.0, 1.0, 2.0])),
        "table": Table(["a", "b|c"], [[1, "x|y"]]), "page": Html("<p>"), "text": Text("words"), "empty": Histogram([]),
    }, step=7)  # fmt: skip
    gone.unlink()
    run.end()
    deliver(run.path, TensorBoard(flush_s=0))
    found = EventAccumulator(str(run.path / "tensorboard"), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
    assert sorted(found.Tags()["images"]) == ["image", "pair/0", "pair/1"]
    (event,) = found.Images("pair/1")
    assert (event.step, event.width, event.height) == (7, 5, 4)
    assert numpy.asarray(Pillow.open(io.BytesIO(event.encoded_image_string))).tolist() == (PIXELS // 2).tolist()
    assert sorted(found.Tags()["histograms"]) == ["counted", "raw"]
    counted = found.Histograms("counted")[0].histogram_value
    assert (counted.min, counted.max, counted.num, counted.sum) == (0.0, 2.0, 4.0, 5.0)
    assert (counted.bucket_limit, counted.bucket) == ([1.0, 2.0], [1.0, 3.0])
    assert found.Histograms("raw")[0].histogram_value.sum == sum(range(100))
    texts = {
        key: found.Tensors(f"{key}/text_summary")[0].tensor_proto.string_val[0].decode()
        for key in ("page", "text", "table")
    }
    assert (texts["page"], texts["text"]) == ("<p>", "words")
    assert texts["table"] == "| a | b\\|c |\n| --- | --- |\n| 1 | x\\|y |"


def test_value_that_cannot_be_encoded_does_not_stop_the_others() -> None:
    class Broken(Value):
        def wire(self) -> list[Any]:
            raise RuntimeError("broken")

    payload, lost = encode_any({"broken": Broken(), "image": Image(PIXELS), "loss": 0.5})
    data = decode_record(payload, 0).data
    assert (lost, data["loss"]) == (["broken"], 0.5)
    assert numpy.asarray(data["image"]).tolist() == PIXELS.tolist()
