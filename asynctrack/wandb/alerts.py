"""Alerts: their levels."""

from __future__ import annotations

from enum import Enum


class AlertLevel(Enum):
    """The level of an alert."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
