"""The queue: a bounded byte ring in shared memory between one logging process and the worker.

`layout` says what a ring's bytes mean, `ring` makes and maps them, `producer` is the hot path, `shm_paths` keeps the directories they lie in.
Imports the standard library only, so that the worker can drain before anything else is imported.
"""
