"""Settings of one pixel per class; the defaults are what scored best (docs/engines.md), the paper's are told beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from labelgen.engines.one_pixel.semantics import Dtype, Semantics
from labelgen.engines.things import THINGS
from labelgen.samples import ClassSet, InputError

# What looks like itself to an ImageNet classifier; a fence does, though nobody counts it.
OBJECTS = ("fence", *THINGS)


@dataclass(frozen=True, kw_only=True)
class OnePixelConfig:
    """Which pixels, what is looked at, and what is believed of it."""

    # Settings that change no scores: what the file says is told by the hash of the classes' vectors.
    speed_only: ClassVar[tuple[str, ...]] = ("points", "readers")

    points: str = ""  # CSV file of the labelled pixels (--points): image,x,y,class
    features: str = "microsoft/resnet-50"  # HF folder or hub id of an image classifier or backbone; "clip": CLIP itself
    semantics: Semantics = "features"  # of it: class activations ("classes", the paper), or the features before them
    dtype: Dtype = "float32"  # of its products; bfloat16 is quicker where the machine has it
    scale: float = 2.0  # slices are resized by this before the network sees them
    superpixels: int = 400  # about, in an image
    mosf: bool = True  # False: the network sees the image at once ("Single Enc.")
    # both: objects by semantics, scenes by imaging (the paper); imaging, semantics: all classes by one
    representation: Literal["both", "imaging", "semantics"] = "semantics"
    measure: Literal["cosine", "intersection"] = "cosine"  # of likeness to a class; intersection: Eq. 1
    top_share: float = 0.01  # of an image's superpixels, that an object's vector is the centre of
    groups: int = 3  # vectors that a scene has at most for a point (G)
    neighbour_threshold: float = 0.5  # of similarity to the labelled superpixel, in a scene's neighbourhood
    context: bool = True  # scores are spread by context (CLR, Eq. 4)
    context_power: float = 4.0  # of similarity in context: the higher, the fewer superpixels count; 1 = Eq. 4
    location: bool = True  # classes keep to their bands (CLR)
    bands: tuple[tuple[str, ...], ...] = ()  # equal bands from top to bottom: the classes allowed there; () = all
    objects: tuple[str, ...] | None = None  # the classes that are objects, the others are scenes; none = by name
    threshold: float = 0.05  # scores below it are no label
    object_margin: float = 1.3  # an object needs this many times the best scene's score; 0 = Eq. 5, 1 = the best wins
    use_labels: bool = False  # image-level labels say what may be in an image; False: none are needed
    readers: int = 2  # threads that look at images

    def __post_init__(self) -> None:
        for name, least in (("groups", 1), ("readers", 1), ("superpixels", 1)):
            if getattr(self, name) < least:
                raise InputError(f"one_pixel.{name} must be at least {least}, got {getattr(self, name)}")
        if self.superpixels > 60_000:
            raise InputError(f"one_pixel.superpixels must be at most 60,000, got {self.superpixels}")
        for name in ("top_share", "neighbour_threshold", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"one_pixel.{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("scale", "context_power"):
            if not getattr(self, name) > 0:
                raise InputError(f"one_pixel.{name} must be positive, got {getattr(self, name)}")
        if not self.object_margin >= 0:
            raise InputError(f"one_pixel.object_margin must not be negative, got {self.object_margin}")

    @property
    def needs_network(self) -> bool:
        """Whether anything is asked of the network."""
        return self.representation != "imaging"

    def is_object(self, classes: ClassSet) -> list[bool]:
        """For each class whether it is an object. Raises InputError for a name that is no class."""
        if self.objects is None:
            return [name in OBJECTS for name in classes.names]
        check_names("objects", self.objects, classes)
        return [name in self.objects for name in classes.names]

    def is_allowed(self, classes: ClassSet) -> list[list[bool]]:
        """For each band from the top, for each class whether it may be there. Raises InputError likewise."""
        for band in self.bands:
            check_names("bands", band, classes)
        if not self.location or not self.bands:
            return [[True] * len(classes)]
        return [[name in band for name in classes.names] for band in self.bands]


def check_names(setting: str, names: Sequence[str], classes: ClassSet) -> None:
    """Raise InputError for a name that is no class."""
    unknown = next((name for name in names if name not in classes.names), None)
    if unknown is not None:
        raise InputError(f"one_pixel.{setting}: unknown class {unknown!r}; known: {', '.join(classes.names)}")
