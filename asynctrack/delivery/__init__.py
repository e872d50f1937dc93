"""Delivery: journal to one backend, in order, from a cursor of its own.

A delivery shares nothing with the loop that logs, with the worker's other duties or with another backend but the journal,
which it reads. So "slow", "down", "restarted" and "added later" are one code path: it is behind, and goes on from its cursor.

Deciding and doing are apart. Values and rules, which read no file and no clock: `next_step` decides what comes next, `gathering` when a batch is cut,
`pending` what an answer of the sink leaves of it, `failures` and `retry_policy` what an error means, `downsample` which records a display needs.

What does it: `driver` drives one sink, `transfer` does the steps, `batcher` reads the journal, `connection` calls the sink, `progress` keeps the cursor,
`lease` lets one process do it at a time, `dead_letters` keeps what a backend will never take, `media_store` makes files of media, `reports` says what
goes wrong. `polling` drives several deliveries at once where nobody tells it that a journal grows, `process` those of one kind of backend.
"""
