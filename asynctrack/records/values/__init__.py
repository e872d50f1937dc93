"""Values: what a user builds to log more than numbers and texts. Runs in the caller.

Each takes what it is given as it is then, and refuses at once what it cannot take; `log()` only copies. What files hold is not read here: a
delivery copies them, if they are then as they were. A value may be logged any number of times, in records, lists and tables.
"""

from asynctrack.records.values.artifact import Artifact
from asynctrack.records.values.histogram import Histogram
from asynctrack.records.values.image import Image
from asynctrack.records.values.table import Table
from asynctrack.records.values.texts import Html, Text

__all__ = ["Artifact", "Histogram", "Html", "Image", "Table", "Text"]
