"""The trainer: a segmentation network that learns from cached pseudo-labels and copes with their noise (CARB)."""
