"""Util: the function of `wandb.util` that scripts use."""

from __future__ import annotations

import secrets
import string
from typing import Final

_CHARACTERS: Final = string.digits + string.ascii_lowercase


def generate_id(length: int = 8) -> str:
    """Generate an id of random digits and small letters.

    Args:
        length: of the id, in characters.
    """
    return "".join(secrets.choice(_CHARACTERS) for _ in range(length))
