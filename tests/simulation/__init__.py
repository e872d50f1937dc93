"""A whole system, simulated from one seed: real processes, disks and backends, a plan of what goes wrong, and one oracle.

`plan` makes a plan of a seed, with the table in `actions`; `world` carries it out, heals all and recovers it; `oracle` looks at what is left.
`caller` is the process that logs, and its `ledger` says what was accepted, also after SIGKILL. `backends` has backends that flap.

The plan is the same for a seed each time; what the processes are at when a step meets them is not, for they are real.
"""
