"""Benchmarks: one module a question, `python -m bench.NAME [--json] [--quick] [--save]`; committed answers in `results/`.

    log_latency   how long `log()` takes, against the bare encoders and the obvious rivals
    hot_loop      how much slower a loop of 200 us steps is that logs every step
    throughput    records and bytes a second, from a tight loop to the journal and the backend
    startup       import, first and hundredth `init()`, `finish()`
    attach        what a second process of a run pays: for `attach()`, and for `log()` against the owner's
    stalls        `log()` with the worker stopped, the disk full or silent, shared memory full, backends down
    soak          ten minutes at 20,000 records a second: what grows
    growth        what a record costs as records, keys and open runs grow; `bench.growth_page` puts it into docs/explanation/performance.md
    reading       how long it takes to read a run, and how much memory
    curves        how long it takes to draw a run, from nothing, with the cache and zoomed
    delivery      records a second and their cost, backend by backend; catching up after an outage
    carriers      records a second from hosts' journals to one merged run and their cost, by a folder and by HTTP
    wandb         a loop that logs to W&B, and what W&B has after SIGKILL: by its own `log`, and through asynctrack
    frameworks    what a call takes of the loggers of Tianshou, TROPT, DRYTorch and SB3, and of ours in their place
    peers         asynctrack beside twenty other ways to track; `bench.peers.show` puts it into docs/explanation/performance.md, `bench.bars` the bars of all

`--help` says what each measures, how long it takes and what it needs of the machine.
"""

import os

# One thread for NumPy's matrix products, as a training loop that shares its machine has; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
