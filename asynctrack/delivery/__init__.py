"""Delivery: journal to one backend, in order, from a cursor of its own.

A delivery shares nothing with the loop that logs, with the worker's other duties or with another backend but the journal,
which it reads. So "slow", "down", "restarted" and "added later" are one code path: it is behind, and goes on from its cursor.

Deciding and doing are apart. Values and rules, which read no file and no clock: `next_step` decides what comes next, `gathering` when a batch is cut,
`pending` what an answer of the sink leaves of it, `failures` and `retry_policy` what an error means, `downsample` which records a display needs,
`line_batches` which file gets finished lines, `writer_views` and `means` what it gets of several writers.

What does it: `driver` drives one sink, `transfer` does the steps, `batcher` reads the journal, `connection` calls the sink, `splitting`
those of several writers, each on a thread of `calls`; `catching_up` makes open means again, `progress` keeps the cursor,
`lease` lets one process do it at a time, `dead_letters` keeps what a backend will never take, `media_store` makes files of media, `reports` says what
goes wrong. To a collector `carrier_transfer` brings the journal's batches as they are, in place of `transfer`, `carried` counts them, and
`carried_files` brings before them the `logged_files`, those that they name by path. `polling` drives several deliveries at once where nobody tells it that a journal grows, `process` those of one kind of backend.
"""
