"""The journal: what was logged, on disk, append-only, in segments, with one writer.

`layout` says what the bytes mean, `writer` appends, syncs and recovers, `reader` reads from a position. Imports the standard
library only, so that the worker can drain before anything else is imported.
"""
