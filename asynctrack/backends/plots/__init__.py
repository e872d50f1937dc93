"""Backends that draw curves: a module each, and the modules that they share."""
