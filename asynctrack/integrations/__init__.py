"""Drop-ins: one module per framework, with what it logs to; each needs its framework, and is imported by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
