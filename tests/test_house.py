"""The house: imports point down, the quick start stays quick, and what the README shows works."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asynctrack

PACKAGE = Path(asynctrack.__file__).parent
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# From the ground up; DESIGN.md has the table with their duties.
LAYERS = [
    ["printable", "wording", "real_threads"],
    [
        "errors",
        "paths",
        "masking",
        "modes",
        "locks",
        "loop",
        "spawn",
        "strays",
        "entry",
        "current",
        "events",
        "references",
        "aside",
    ],
    ["queue.layout", "sources", "bins", "plain_file", "png", "trust", "messages"],
    ["wandb_api.unsupported"],
    ["logged", "wire", "patience"],
    ["arrays"],
    ["values.files"],
    ["values.artifact", "values.histogram", "values.image", "values.table", "values.texts"],
    ["values"],
    ["foreign"],
    ["snapshot"],
    ["queue.ring", "queue.places", "record", "settings"],
    ["queue.producer", "census", "kinds", "claim", "greeting"],
    ["journal.layout"],
    ["journal.frames"],
    ["journal.reader"],
    ["journal.writer", "journal.backwards"],
    ["journal.tally"],
    ["manifest", "cursor"],
    ["backends.needs"],
    ["backends.base"],
    ["media"],
    [
        "backends.subscriber",
        "backends.origin",
        "backends.http",
        "backends.keys",
        "backends.memory",
        "backends.mlflow.items",
        "backends.screen",
    ],
    [
        "backends.files.appending",
        "backends.files.reserved",
        "backends.files.told",
        "backends.files.json_file",
        "backends.files.syncing",
    ],
    [
        "backends.files.csv_rows",
        "backends.files.json_columns",
        "backends.files.jsonl",
        "backends.files.parquet_table",
        "backends.files.yaml",
    ],
    ["backends.files.csv", "backends.files.parquet"],
    ["backends.console.bars", "backends.console.choice", "backends.console.text", "backends.plots.curves"],
    ["backends.console"],
    ["backends.sql.tables"],
    ["backends.sql.database"],
    ["backends.sql.sink"],
    ["backends.sql", "backends.hydra_link", "backends.visdom"],
    ["backends.plots.drawing"],
    ["backends.plots.live_plot", "backends.plots.matplotlib", "backends.plots.plotly"],
    ["backends.tfevents.crc32c", "backends.tfevents.messages", "backends.tfevents.server"],
    ["backends.tfevents.histogram", "backends.tfevents.hparams"],
    ["backends.tfevents.pictures"],
    ["backends.tfevents.events"],
    ["backends.tfevents.file"],
    ["backends.tfevents.sink"],
    [
        "backends.one_thread",
        "backends.wandb.aggregates",
        "backends.wandb.core",
        "backends.wandb.files",
        "backends.wandb.media",
    ],
    ["backends.wandb.rows"],
    ["backends.wandb.session"],
    ["backends.wandb.sink"],
    ["backends.wandb"],
    ["backends.mlflow", "backends.tensorboard", "backends.trackio"],
    ["backends.registry"],
    ["reading.columns", "reading.damage", "reading.frames", "reading.history", "reading.remains"],
    ["reading.reader", "books", "delivery.thinning", "delivery.verdict", "delivery.refused"],
    ["worker.set_back", "reading.loading"],
    ["catalog", "delivery.cutter"],
    ["delivery.lease", "delivery.pending", "delivery.repeats"],
    ["delivery.progress"],
    ["delivery.driver"],
    ["delivery.polling"],
    ["delivery.process"],
    ["worker.callers"],
    ["worker.endings"],
    ["worker.scribe", "worker.relay", "worker.run_journal", "worker.home"],
    ["worker.drain", "worker.orphans"],
    ["worker.sync", "worker.supervisor", "worker.rescue", "local"],
    ["worker.run_service"],
    ["worker.lane"],
    ["worker.service"],
    ["worker.main", "worker.threads"],
    ["launch", "rehousing"],
    ["host"],
    ["hosts"],
    ["outlook"],
    ["catchup"],
    ["wandb_api.borrowed", "ending", "fields", "scope", "defaults", "wandb_api.arguments"],
    ["forewarning"],
    ["oddities", "parting", "backlog"],
    ["inlet"],
    ["sitting"],
    ["run"],
    ["disabled", "presence"],
    ["opening"],
    ["configuration"],
    ["tracker", "checkup", "wandb_api.script"],
    ["integrations.figures", "integrations.naming", "integrations.restored", "integrations.unfinished"],
    [
        "integrations.drytorch_run",
        "integrations.handover",
        "integrations.log_dir",
        "integrations.noether_base",
        "integrations.pixels",
        "integrations.tropt_base",
    ],
    ["integrations"],
    ["testing.journaled", "testing.scripted"],
    ["testing.contract"],
    ["asynctrack"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
# What runs before the worker has imported anything else.
BOOTSTRAP = {
    "_weakref",
    "contextlib",
    "errno",
    "fcntl",
    "itertools",
    "mmap",
    "os",
    "select",
    "stat",
    "struct",
    "threading",
    "time",
    "zlib",
}
BOOTSTRAP |= {"collections", "__future__", "sys"}


def level(module: str) -> int:
    for height, names in enumerate(LAYERS):
        if module in names or module.split(".")[0] in names:
            return height
    raise AssertionError(f"{module} has no place in the house; give it one")


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.with_suffix("").parts) for path in paths if path.name != "__init__.py")


def imports(module: str, *, inside_functions: bool) -> set[str]:
    """What a module imports, without what only a type checker sees."""
    tree = ast.parse((PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text())
    hidden = [node for node in tree.body if isinstance(node, ast.If)]
    nodes = ast.walk(tree) if inside_functions else iter(tree.body)
    skipped = {id(inner) for node in hidden for inner in ast.walk(node)}
    found = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {f"asynctrack.{name}" for name in modules()}
            found |= (submodules & known) or {node.module}
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    for name in imports(module, inside_functions=True):
        if name == "asynctrack" or name.startswith("asynctrack."):
            below = name.removeprefix("asynctrack.")
            assert level(below) < level(module) or below.split(".")[0] == module.split(".")[0] in ("demo", "cli"), (
                f"{module} imports {below}, which is not below it"
            )


@pytest.mark.parametrize(
    "module",
    [m for m in modules() if m.startswith(("queue.", "journal.")) and m not in ("queue.producer", "journal.tally")],
)
def test_queue_and_journal_need_only_what_is_quick_to_import(module: str) -> None:
    assert {name for name in imports(module, inside_functions=False) if not name.startswith("asynctrack.")} <= BOOTSTRAP


@pytest.mark.parametrize("module", ["worker.main", "worker.drain", "worker.run_journal", "worker.sync"])
def test_the_worker_starts_with_what_is_quick_to_import(module: str) -> None:
    assert {name for name in imports(module, inside_functions=False) if not name.startswith("asynctrack.")} <= BOOTSTRAP


def test_importing_the_package_imports_no_backend_and_no_event_loop() -> None:
    script = "import sys, asynctrack; print([m for m in ('asyncio', 'anyio', 'aiofiles', 'numpy', 'wandb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


def test_ci_runs_the_readmes_test_line() -> None:
    (line,) = re.findall(r"^\$ (.*pytest)$", README, re.M)
    assert line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_test_that_a_readme_names_is_there() -> None:
    named = [
        (path.parent / file, name)
        for path in (ROOT / "README.md", ROOT / "tests" / "README.md")
        for name, file in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", path.read_text())
    ]
    assert len(named) > 8
    assert [f"{file.name}::{name}" for file, name in named if f"def {name}(" not in file.read_text()] == []


def test_table_and_chart_of_peers_are_those_of_the_result() -> None:
    subprocess.run([sys.executable, "-m", "bench.peers.show", "--check"], cwd=ROOT, check=True, timeout=50)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_what_the_readme_shows_runs(block: str, tmp_path: Path) -> None:
    script = block.replace("1_000_000", "1_000")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
