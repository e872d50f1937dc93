"""Pages: puts what benchmarks have found between the marks of a document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PERFORMANCE: Final = ROOT / "docs" / "explanation" / "performance.md"


def with_part(page: str, mark: str, part: str) -> str:
    """Return a page with this part between `<!-- MARK -->` and `<!-- /MARK -->`.

    Raises:
        ValueError: it does not have both marks, in this order.
    """
    before, begin, rest = page.partition(f"<!-- {mark} -->")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not begin or not end:
        raise ValueError(f"the page must have <!-- {mark} --> and, after it, <!-- /{mark} -->")
    return f"{before}{begin}\n{part}\n{end}{after}"


def bring_up_to_date(wanted: Mapping[Path, str], *, check: bool) -> int:
    """Write the files that differ, or only say so.

    Returns:
        1 if some differ and nothing was written, else 0.
    """
    old = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'is written'}")
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    return int(check and bool(old))
