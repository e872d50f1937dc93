"""A drop-in without its framework says what to install."""

from __future__ import annotations

import pytest
from support import run_child


@pytest.mark.system
@pytest.mark.parametrize(
    ("drop_in", "framework", "requirement"),
    [
        ("tianshou", "tianshou", "tianshou>=1.2"),
        ("tropt", "tropt", "tropt>=0.1.1"),
        ("drytorch", "drytorch", "drytorch==0.1.0rc11"),
        ("transformers", "transformers", "transformers>=4.50"),
        ("stable_baselines3", "stable_baselines3", "stable-baselines3>=2.7"),
    ],
)
def test_the_error_names_what_to_install(drop_in: str, framework: str, requirement: str) -> None:
    script = """
import importlib, json, sys
import asynctrack
sys.modules[sys.argv[2]] = None
try:
    importlib.import_module(f"asynctrack.integrations.{sys.argv[1]}")
except asynctrack.errors.FrameworkMissing as error:
    print(json.dumps([isinstance(error, ImportError), str(error)]))
"""
    is_import_error, said = run_child(script, drop_in, framework)
    assert is_import_error
    assert said.endswith(f"pip install '{requirement}'; see docs/how_to/frameworks/index.md")
