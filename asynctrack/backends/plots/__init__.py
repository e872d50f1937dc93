"""Backends that draw curves: a module each, and what they share."""
