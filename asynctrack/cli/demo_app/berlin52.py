"""The 52 places in Berlin of TSPLIB's berlin52, and the length of a tour through them.

Source: G. Reinelt, TSPLIB 95, Universität Heidelberg, `berlin52.tsp` (Groetschel) and `berlin52.opt.tour`; the
shortest tour has length 7542. TSPLIB's EUC_2D rounds each distance to the nearest integer, and so does `distances`:
without that, lengths could not be compared with 7542 (the same tour is 7544.37 long unrounded).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

__all__ = ["OPTIMUM", "PLACES", "Place", "distances", "tour_length"]

Place = tuple[int, int]

OPTIMUM = 7542

# fmt: off
PLACES: tuple[Place, ...] = (
    (565, 575), (25, 185), (345, 750), (945, 685), (845, 655), (880, 660), (25, 230), (525, 1000),
    (580, 1175), (650, 1130), (1605, 620), (1220, 580), (1465, 200), (1530, 5), (845, 680), (725, 370),
    (145, 665), (415, 635), (510, 875), (560, 365), (300, 465), (520, 585), (480, 415), (835, 625),
    (975, 580), (1215, 245), (1320, 315), (1250, 400), (660, 180), (410, 250), (420, 555), (575, 665),
    (1150, 1160), (700, 580), (685, 595), (685, 610), (770, 610), (795, 645), (720, 635), (760, 650),
    (475, 960), (95, 260), (875, 920), (700, 500), (555, 815), (830, 485), (1170, 65), (830, 610),
    (605, 625), (595, 360), (1340, 725), (1740, 245),
)
# fmt: on


def distances(places: Sequence[Place] = PLACES) -> list[list[int]]:
    """Return the distance from each place to each place, rounded as TSPLIB's EUC_2D says: `int(d + 0.5)`."""
    return [[int(hypot(ax - bx, ay - by) + 0.5) for bx, by in places] for ax, ay in places]


def tour_length(tour: Sequence[int], table: Sequence[Sequence[int]]) -> int:
    """Return the length of the closed tour that visits the places in the order `tour`; `table` is from `distances`."""
    return sum(table[tour[k - 1]][tour[k]] for k in range(len(tour)))
