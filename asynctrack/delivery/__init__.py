"""Delivery: journal to one backend, in order, from a cursor of its own.

A delivery shares nothing with the loop that logs, with the worker's other duties or with another backend but the journal,
which it reads. So "slow", "down", "restarted" and "added later" are one code path: it is behind, and goes on from its cursor.

`driver` drives one sink; `batcher` makes its batches, `downsample` leaves records out for displays, `pending` is a batch on its way, `progress` is how far it is,
`lease` lets one process do it at a time, `retry_policy` says what an error means, `dead_letters` keeps what a backend
will never take. `polling` drives several at once where nobody tells it that a journal grows.
"""
