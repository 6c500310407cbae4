"""The data sets: what they are (`registry`), and how their files are found, read, checked, fetched."""

from pipeline.datasets.registry import DATASETS, DatasetSpec, dataset

__all__ = ["DATASETS", "DatasetSpec", "dataset"]
