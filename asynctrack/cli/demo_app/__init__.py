"""The demo of `asynctrack demo`: four annealers that look for the shortest tour through berlin52, every step tracked."""
