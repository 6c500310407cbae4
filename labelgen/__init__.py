"""Dense pseudo-labels from a frozen CLIP, cached in Zarr."""
