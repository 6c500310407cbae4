"""One pixel per class: superpixels that resemble the labelled ones; the paper's formulas by name."""

from labelgen.clr import refine
from labelgen.engines.one_pixel.equations import similarity
from labelgen.engines.one_pixel.semantics import mosf_slices

__all__ = ["mosf_slices", "refine", "similarity"]
