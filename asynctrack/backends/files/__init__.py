"""Backends that write files into the run's directory, for people and their tools.

A module each, and the modules that they share.
"""
