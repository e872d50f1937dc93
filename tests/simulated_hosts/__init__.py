"""Hosts that record one run together, simulated on one machine; `python -m tests.simulated_hosts`.

A host is a directory, a name, a shared memory and a way through the network of its own, with real processes. `plan` says what a seed makes happen to them, `world` has it
happen, and `oracle` looks at what is left.
"""
