"""Printable: text that a terminal shows and does not obey, whoever has written it. Runs anywhere. Standard library only.

Names, keys, values, paths and messages may come from a run that somebody else has made. An escape sequence in them could move the cursor, change
the window's title or write to the clipboard, and one that turns the direction of writing could show a text that is not there.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Return text with every character that moves a cursor, changes a colour, ends a line or turns its direction escaped: `\x1b`, `\n`, `\u202e`.

    Args:
        text: from anybody.
        keep: characters that stay all the same, such as a line's end in a message of several lines.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)
