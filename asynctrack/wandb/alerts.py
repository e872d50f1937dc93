"""Alerts: how grave one is."""

from __future__ import annotations

from enum import Enum


class AlertLevel(Enum):
    """How grave an alert is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
