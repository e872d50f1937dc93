"""Backends that write files in the run's directory for people and their tools: a module each, and what they share."""
