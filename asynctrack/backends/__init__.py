"""Backends: where records go. One file each; `base` says what a backend promises and may assume."""
