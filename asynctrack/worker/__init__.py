"""The worker: what happens behind `log()`. Runs in a process of its own, or on threads of the caller.

`drain` moves bytes from rings to journals and `fsync` makes them survive a power cut; both import the standard library only
and start first. `service` runs the light deliveries, `main` is the process.
"""
