"""Data sets, configuration and the command line: what ties labels, training and scores together."""
