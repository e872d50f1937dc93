"""The record that the benchmarks log: 4 floats, an integer and a short string, made afresh for each call as a loop does. Imports nothing."""

from __future__ import annotations


def record(step: int) -> dict[str, float | int | str]:
    return {
        "loss": 0.5 + step * 1e-7,
        "accuracy": 0.9 - step * 1e-8,
        "lr": 0.001 + step * 1e-9,
        "grad_norm": step * 0.5,
        "epoch": step // 1000,
        "phase": "train",
    }
