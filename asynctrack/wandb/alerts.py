"""Alerts: their levels."""

from __future__ import annotations

from enum import Enum


class AlertLevel(Enum):
    """Names the level of an alert."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
