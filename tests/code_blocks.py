"""Code blocks of the documents: finds them, and runs each as a reader would, in an empty directory.

`python tests/code_blocks.py [--python PYTHON] PAGE...` runs those of these pages on an interpreter. Imports the standard library only, so that an
environment needs nothing but what a page says to install.

A comment on the line before a block steers it:

- `<!-- not run: REASON -->`: it is not run.
- `<!-- file: NAME -->`: it is no script. Every script of its page finds it in its directory, under this name.
- `<!-- prints -->`, before a block of text: the script before it prints just that. Ids of runs and their dates may differ.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

LIMIT_S: Final = 50.0

_BLOCK: Final = re.compile(
    r"^(?:<!-- (?P<mark>[\w ]+?)(?:: (?P<value>[^\n]*?))? -->\n)?```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_RUN_ID: Final = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{6}\b")


class CodeBlock(NamedTuple):
    """One script of a page."""

    page: Path
    line: int
    text: str
    not_run: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    prints: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    def imports(self) -> set[str]:
        """Return the modules that it imports, their packages only."""
        found = set()
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
        return found


class Outcome(NamedTuple):
    """The end of a script, and what is wrong with that: nothing where it went well."""

    problem: str
    printed: str


def code_blocks(page: Path) -> list[CodeBlock]:
    """Find the scripts of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[CodeBlock] = []
    files: dict[str, str] = {}
    for match in _BLOCK.finditer(text):
        mark, value = match["mark"], match["value"]
        if mark == "file":
            files[value] = match["text"]
        elif mark == "prints":
            found[-1] = found[-1]._replace(prints=match["text"])
        elif match["language"] == "python":
            line = text.count("\n", 0, match.start("text")) + 1
            found.append(CodeBlock(page, line, match["text"], value if mark == "not run" else None))
    return [block._replace(files=tuple(files.items())) for block in found]


def run(block: CodeBlock, python: str, folder: Path) -> Outcome:
    """Run a script in a directory that has nothing but the page's files."""
    for name, text in block.files:
        (folder / name).write_text(text, encoding="utf-8")
    script = folder / "example.py"
    script.write_text(block.text, encoding="utf-8")
    try:
        done = subprocess.run([python, script.name], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return Outcome(f"it runs for more than {LIMIT_S:.0f} s", "")
    if done.returncode:
        return Outcome(f"it ends with exit code {done.returncode}:\n{done.stderr}", done.stdout)
    return Outcome(_difference(block, done.stdout), done.stdout)


def _difference(block: CodeBlock, printed: str) -> str:
    if block.prints is None or _RUN_ID.sub("ID", printed) == _RUN_ID.sub("ID", block.prints):
        return ""
    return f"the page says that it prints\n{block.prints}\nbut it prints\n{printed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the scripts")
    parser.add_argument("pages", nargs="+", type=Path)
    arguments = parser.parse_args()
    failed = False
    for block in (block for page in arguments.pages for block in code_blocks(page) if block.not_run is None):
        # What a script has started may end after it: the process that finds out where a run comes from still writes into its directory.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            problem = run(block, arguments.python, Path(folder)).problem
        print(f"{block.name}: {problem or 'ok'}", flush=True)
        failed = failed or bool(problem)
    sys.exit(failed)


if __name__ == "__main__":
    main()
