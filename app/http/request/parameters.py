"""The query parameters of each endpoint are one frozen model, which knows their names, types and bounds."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from app.http.formats import mask_words
from app.http.request.query import MAX_SCALES, SCALE_RANGE, Parameters, Scales, parse_names
from app.inference.class_names import find_class
from app.inference.errors import ParameterError
from app.inference.label_maps.regions import Shape
from app.inference.maps.localization import Refinement
from app.inference.model_card import ModelCard
from app.inference.options import Options, Size

ALL_CLASSES = ALL_MODELS = "all"
EVERY_CLASS = "*"  # It says the same of a model that has a class called "all".
MAX_FUSED = 8
MASK_FORMATS = (
    f"The reply is json, {', '.join(mask_words()[:-1])} or {mask_words()[-1]}; this goes before the Accept header."
)
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
SMALLEST_REGION = Field(
    default=0,
    description="A region must hold this share of the photo: pixels of a class that touch and are fewer become background.",
    examples=[0.001],
)


class ModelParameters(Parameters):
    """These ask for something of one model."""

    model: str | None = Field(
        default=None,
        max_length=100,
        description="NAME (its highest version) or NAME/VERSION names the model; GET /models lists them and marks the default.",
    )


class PhotoParameters(ModelParameters):
    """These ask for something of one photo."""

    format: str | None = None
    size: Size = Field(
        default="image",
        description="The result has the size of the photo (image), or the smaller one at which the model saw it (model).",
    )
    tags: str | None = Field(
        default=None,
        max_length=4000,
        description="These classes, separated by commas, are all that are known to be in the photo: no other gets a map or a "
        "label, and what a mask takes for another is one of these.",
        examples=["dog,person"],
    )
    scales: Scales | None = Field(
        default=None,
        description=f"The network sees the photo at these factors of its input size, and the answers are joined: up to {MAX_SCALES}, "
        f"each in {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g}. Without it the model's are taken.",
        examples=["0.5,1,1.5"],
    )
    flip: bool | None = Field(
        default=None, description="The mirrored photo is looked at as well; without it the model's own setting holds."
    )
    refine: Refinement = Field(default="none", description="pamr refines the maps by the look of the photo.")
    regions: Shape = Field(
        default="rle",
        description="json and coco give regions as COCO's run lengths (rle), or as polygons, which lose holes.",
    )

    def options(self) -> Options:
        """Return what is asked of the photo, parsed. Raises ParameterError for a list of tags without a name."""
        return Options(
            tags=parse_names(self.tags, "tags", "Write tags=dog,person, or leave it out to go by the scores."),
            scales=None if self.scales is None else self.scales.factors,
            flip=self.flip,
            refine=self.refine,
            size=self.size,
        )

    def fused_names(self) -> tuple[str, ...]:
        """Return the models whose maps are fused."""
        return ()


class SegmentParameters(PhotoParameters):
    """These ask for a mask."""

    format: str | None = Field(default=None, description=MASK_FORMATS)
    threshold: Fraction = Field(
        default=0, description="Pixels whose best probability lies below it are background; by default none are."
    )
    presence_threshold: Fraction | None = Field(
        default=None,
        description="Without `tags`, a class that the whole photo shows with less probability gets no pixel, where the model "
        "gives such scores; the default is the model's, one per class, and with 0 every class may have pixels.",
    )
    smallest_region: Fraction = SMALLEST_REGION

    def options(self) -> Options:
        return replace(
            super().options(),
            threshold=self.threshold,
            presence_threshold=self.presence_threshold,
            smallest_region=self.smallest_region,
        )


class LocalizationParameters(PhotoParameters):
    """These ask for what is made of class activation maps."""

    inference: Literal["plain", "class-conditional"] = Field(
        default="plain",
        description="With class-conditional, CCRM splits the photo, erases what was found and looks again, which finds more of "
        "each thing and takes some fifty times as long. Its scales and mirroring default to those of the paper.",
    )
    fuse: str | None = Field(
        default=None,
        max_length=400,
        description=f"2 to {MAX_FUSED} cam models, separated by commas, or '{ALL_MODELS}' that know the class, answer in the place "
        "of `model`. Their maps are averaged, and each counts as much as the others agree with it. Models of other classes are "
        f"left out of '{ALL_MODELS}', and named (`left_out`, `X-Models-Left-Out`).",
        examples=["cam,drs"],
    )

    def options(self) -> Options:
        return replace(super().options(), conditional=self.inference == "class-conditional")

    def fused_names(self) -> tuple[str, ...]:
        return parse_names(self.fuse, "fuse", "Write fuse=cam,drs, or leave it out.") or ()

    @model_validator(mode="after")
    def _check_models(self) -> "LocalizationParameters":
        if self.fuse is not None and self.model is not None:
            raise ParameterError(
                "fuse= names all models whose maps are fused; leave model= out, or add it to that list.",
                parameter="fuse",
            )
        return self


class CamParameters(LocalizationParameters):
    """These ask for a heatmap."""

    class_name: str = Field(
        alias="class",
        max_length=100,
        description=f"The map is that of this class: its name, in any case, or a usual synonym; '{ALL_CLASSES}' ('{EVERY_CLASS}' where "
        "a class is called that) means every class.",
        examples=["dog"],
    )
    format: str | None = Field(
        default=None,
        description="The reply is png (colours), overlay, gray8, gray16, npy, npz, json, coco or hf; for class=all it is json, "
        "npy, npz, coco or hf. This goes before the Accept header.",
    )
    threshold: Fraction | None = Field(
        default=None,
        description="The map is 0 where it does not exceed it; coco and hf hold what exceeds it. By default there is "
        "none; coco and hf then take the model's background threshold.",
    )

    def names_all(self, card: ModelCard) -> bool:
        """Tell whether the maps of all classes are asked for. Raises ParameterError where that cannot be."""
        everything = self.class_name == every_class(card) or self.class_name == EVERY_CLASS
        if everything and self.inference != "plain":
            raise ParameterError(
                f"inference=class-conditional erases what it found of the classes in the photo, and class={self.class_name} "
                f"names those that are not in it too. Name one class, or ask for a pseudo-label.",
                parameter="inference",
            )
        return everything


class PseudoLabelParameters(LocalizationParameters):
    """These ask for a pseudo-label."""

    format: str | None = Field(default=None, description=MASK_FORMATS)
    background_threshold: Fraction | None = Field(
        default=None, description="Pixels whose best map is at or below it are background; the default is the model's."
    )
    foreground_threshold: Fraction | None = Field(
        default=None,
        description="Pixels whose best map is above it take the map's class; between the two thresholds they are "
        "'ignore' (255). The default is the background threshold, so that nothing is ignored.",
    )
    presence_threshold: Fraction | None = Field(
        default=None,
        description="Without `tags`, a class whose score reaches it is held to be in the photo; the default is the model's, one "
        "per class.",
    )
    smallest_region: Fraction = SMALLEST_REGION

    def options(self) -> Options:
        return replace(
            super().options(),
            background_threshold=self.background_threshold,
            foreground_threshold=self.foreground_threshold,
            presence_threshold=self.presence_threshold,
            smallest_region=self.smallest_region,
        )


class AnalyzeParameters(PseudoLabelParameters):
    """These ask for all results of a photo at once."""

    format: str | None = Field(
        default=None, description="The reply is json or npz; this goes before the Accept header."
    )
    model: str | None = Field(
        default=None,
        max_length=100,
        description="This model makes the maps and the pseudo-label; without it the default cam model does.",
    )
    segmenter: str | None = Field(
        default=None,
        max_length=100,
        description="This model makes the mask; without it the default segmentation model does.",
    )
    threshold: Fraction = Field(
        default=0, description="Pixels of the mask whose best probability lies below it are background."
    )

    def options(self) -> Options:
        return replace(super().options(), threshold=self.threshold)


class KeptImage(BaseModel):
    """A GET adds these to the parameters of its POST."""

    image: str | None = Field(
        default=None,
        max_length=200,
        description="The photo is the one posted before under this id (SHA-256 of its bytes, `image.id` of the replies); without "
        "it, the one of the cookie that POST /segment sets.",
    )


class KeptSegmentParameters(SegmentParameters, KeptImage):
    """These ask for the mask of a photo posted before."""


class KeptCamParameters(CamParameters, KeptImage):
    """These ask for the heatmap of a photo posted before."""


class KeptPseudoLabelParameters(PseudoLabelParameters, KeptImage):
    """These ask for the pseudo-label of a photo posted before."""


class KeptAnalyzeParameters(AnalyzeParameters, KeptImage):
    """These ask for all results of a photo posted before."""


def every_class(card: ModelCard) -> str:
    """Return the word that names all classes of a model: "all", unless one of them is called so."""
    return EVERY_CLASS if find_class(ALL_CLASSES, card.classes, card.synonyms) is not None else ALL_CLASSES
