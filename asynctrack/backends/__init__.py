"""Backends: where records go. A file or a folder each; `base` says what a backend promises and may assume."""
