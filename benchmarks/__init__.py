"""Measurements of speed and of agreement, run by `make bench`."""
