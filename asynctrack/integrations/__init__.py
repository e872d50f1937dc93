"""Drop-ins: one module per framework, with what it logs to; each needs its framework, and is imported by name."""
