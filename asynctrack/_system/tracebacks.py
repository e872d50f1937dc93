"""Tracebacks: an exception as Python prints it, of bounded length and without secrets. Runs anywhere. Standard library only."""

from __future__ import annotations

from typing import Final

from asynctrack._system.masking import mask_text

# A traceback is that long at most; what is beyond is left out where the program began. Arbitrary: some hundred frames.
MOST_BYTES: Final = 32 << 10
# Of each exception so many frames, the innermost. A recursion that has no end has a thousand.
_MOST_FRAMES: Final = 100
# A line of code, or of what an exception says, is no longer. Arbitrary.
_LONGEST_LINE: Final = 1000
# What an exception says takes so much at most, so that the frames have room.
_MOST_MESSAGE: Final = 8 << 10


def format_traceback(error: BaseException) -> str | None:
    """Return the traceback of an exception, with its causes, its notes and the members of a group; None where its own code fails. Reads source files."""
    import traceback  # a run that ends well does without

    try:
        found = traceback.TracebackException.from_exception(error, limit=-_MOST_FRAMES)
        text = "".join(found.format(chain=True))
        said = "".join(found.format_exception_only())
    except KeyboardInterrupt:
        raise
    except BaseException:  # the exception's own code failed, perhaps by SystemExit: the run ends all the same
        return None
    if len(said) > _MOST_MESSAGE and text.endswith(said):
        text = f"{text.removesuffix(said)}{said[:_MOST_MESSAGE]}...\n"
    lines = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in text.split("\n")]
    return _cut(mask_text("\n".join(lines)).encode("utf-8", "backslashreplace").decode().rstrip("\n"))


def _cut(text: str) -> str:
    """Leave out the beginning of what is too long."""
    size, kept = 0, len(lines := text.split("\n"))
    while kept and size + len(lines[kept - 1].encode()) + 1 <= MOST_BYTES - 100:
        kept -= 1
        size += len(lines[kept].encode()) + 1
    return text if not kept else "\n".join([f"... ({kept} lines are left out)", *lines[kept:]])
