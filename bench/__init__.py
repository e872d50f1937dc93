"""Benchmarks: one module a question, `python -m bench.NAME [--json] [--quick] [--save]`; committed answers in `results/`."""

import os

# One thread for NumPy's matrix products, as a training loop that shares its machine has; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
