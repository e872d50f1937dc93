"""Values: the classes with which a user logs more than numbers and texts. Runs in the caller.

Each copies what it is given when it is built, and raises at once if it cannot take it; `log()` only copies. The content of files is not read here: a
delivery copies them, if they have not changed. A value may be logged any number of times, in records, lists and tables.
"""

from asynctrack.records.values.artifact import Artifact
from asynctrack.records.values.histogram import Histogram
from asynctrack.records.values.image import Image
from asynctrack.records.values.table import Table
from asynctrack.records.values.texts import Html, Text

__all__ = ["Artifact", "Histogram", "Html", "Image", "Table", "Text"]
