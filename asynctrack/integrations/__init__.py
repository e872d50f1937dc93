"""Integrations: one module per framework. Each is imported by its name, and needs its framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
