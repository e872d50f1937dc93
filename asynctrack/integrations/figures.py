"""Figures: those of Matplotlib that a framework hands over, as images. Runs in the caller."""

from __future__ import annotations

import sys
from typing import Any

from asynctrack.records.values.image import Image


def is_figure(value: object) -> bool:
    """Whether this is a figure; where Matplotlib has not been imported nothing is one."""
    matplotlib = sys.modules.get("matplotlib.figure")
    return matplotlib is not None and isinstance(value, matplotlib.Figure)


def draw(figure: Any, *, close: bool = True) -> Image:
    """The figure as it is now.

    Args:
        figure: of Matplotlib.
        close: take it out of pyplot's list afterwards, as TensorBoard's `add_figure` does.
    """
    image = Image(figure)
    if close and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close(figure)
    return image
