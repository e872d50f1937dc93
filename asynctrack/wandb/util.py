"""What scripts take from `wandb.util`."""

from __future__ import annotations

import secrets
import string
from typing import Final

_CHARACTERS: Final = string.digits + string.ascii_lowercase


def generate_id(length: int = 8) -> str:
    """An id of random digits and small letters."""
    return "".join(secrets.choice(_CHARACTERS) for _ in range(length))
