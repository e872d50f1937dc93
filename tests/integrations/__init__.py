"""Drop-ins, each with its real framework; `tests/README.md` says how to get the heavy ones."""
