"""Figures: turn Matplotlib's figures that a framework hands over into images. Runs in the caller."""

from __future__ import annotations

import sys
from typing import Any

from asynctrack.records.values.image import Image


def is_figure(value: object) -> bool:
    """Return whether a value is a figure; nothing is one where Matplotlib has not been imported."""
    matplotlib = sys.modules.get("matplotlib.figure")
    return matplotlib is not None and isinstance(value, matplotlib.Figure)


def draw(figure: Any, *, close: bool = True) -> Image:
    """Draw a figure as it is now.

    Args:
        figure: of Matplotlib.
        close: whether it is then removed from pyplot's list, as TensorBoard's `add_figure` does.

    Returns:
        The image.
    """
    image = Image(figure)
    if close and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close(figure)
    return image
