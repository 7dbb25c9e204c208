"""Query parameters of the endpoints: one frozen model each, which knows its names, types and bounds."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.errors import ParameterError, nearest_name
from app.predict import Inference

ALL_CLASSES = "all"
MAX_SCALES = 6
SCALE_RANGE = (0.25, 2.0)

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Parameters(BaseModel):
    """Base of all: an unknown name is refused with the known ones, and so is a missing `class`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: dict[str, Any]) -> dict[str, Any]:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in data:
            if name not in known:
                nearest = nearest_name(name, known)
                hint = f"Did you mean {nearest!r}? " if nearest else ""
                listed = f"Known here: {', '.join(known)}." if known else "None is known here."
                raise ParameterError(
                    f"unknown query parameter {name[:80]!r}. {hint}{listed}", parameter=name[:80], known=known
                )
        if "class" in known and "class" not in data:
            raise ParameterError(
                "the query parameter 'class' is missing: class=dog names a class, class=all means every one. "
                "GET /classes lists them.",
                parameter="class",
            )
        return data


class NoParameters(Parameters):
    """For endpoints that take none."""


class ModelParameters(Parameters):
    """For what is answered of one model."""

    model: str | None = Field(
        default=None,
        max_length=100,
        description="NAME (its highest version) or NAME/VERSION; GET /models lists them and marks the default.",
    )


class PhotoParameters(ModelParameters):
    """For what is answered of one photo."""

    format: str | None = None

    def class_names(self) -> list[tuple[str, str]]:
        """(parameter, class name) of every class the request names."""
        return []


class SegmentParameters(PhotoParameters):
    """For a mask."""

    format: str | None = Field(
        default=None, description="json, png, overlay, gray8 or npy; goes before the Accept header."
    )


class LocalizationParameters(PhotoParameters):
    """For what is made of class activation maps."""

    scales: str | None = Field(
        default=None,
        max_length=100,
        description=f"Factors of the network's input size, maps summed: up to {MAX_SCALES}, each in "
        f"{SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g}; default: the model's.",
        examples=["0.5,1,1.5"],
    )
    flip: bool | None = Field(default=None, description="Add the mirrored photo's maps; default: the model's.")
    inference: Literal["plain", "class-conditional"] = Field(
        default="plain",
        description="class-conditional: CCRM splits the photo, erases what was found and looks again, which finds more of "
        "each thing and takes some fifty times as long. Its scales and mirroring default to those of the paper.",
    )

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, scales: str | None) -> str | None:
        if scales is not None:
            factors = parse_scales(scales)
            low, high = SCALE_RANGE
            if not 0 < len(factors) <= MAX_SCALES or not all(low <= factor <= high for factor in factors):
                raise ValueError(
                    f"1 to {MAX_SCALES} numbers from {low:g} to {high:g}, separated by commas, are expected"
                )
        return scales

    @property
    def settled_inference(self) -> Inference:
        """What was asked for, as prediction takes it."""
        scales = None if self.scales is None else parse_scales(self.scales)
        return Inference(self.inference == "class-conditional", scales, self.flip)


class CamParameters(LocalizationParameters):
    """For a heatmap."""

    class_name: str = Field(
        alias="class", max_length=100, description=f"A class name, or '{ALL_CLASSES}'.", examples=["dog"]
    )
    format: str | None = Field(
        default=None,
        description="png (colours), overlay, gray8, gray16, npy or json; for class=all json or npy. Goes before the "
        "Accept header.",
    )

    @model_validator(mode="after")
    def _check_inference(self) -> "CamParameters":
        if self.class_name == ALL_CLASSES and self.inference != "plain":
            raise ParameterError(
                "inference=class-conditional erases what it found of the classes in the photo, and class=all names those "
                "that are not in it too. Name one class, or ask for a pseudo-label.",
                parameter="inference",
            )
        return self

    def class_names(self) -> list[tuple[str, str]]:
        return [] if self.class_name == ALL_CLASSES else [("class", self.class_name)]


class PseudoLabelParameters(LocalizationParameters):
    """For a pseudo-label."""

    format: str | None = Field(
        default=None, description="png, overlay, gray8, npy or json; goes before the Accept header."
    )
    tags: str | None = Field(
        default=None,
        max_length=4000,
        description="The classes known to be in the photo, separated by commas; without it those whose score reaches "
        "their presence threshold.",
        examples=["dog,person"],
    )
    background_threshold: Fraction | None = Field(
        default=None, description="Pixels whose best map is at or below it are background; default: the model's."
    )
    foreground_threshold: Fraction | None = Field(
        default=None,
        description="Pixels whose best map is above it take the map's class; between the two thresholds they are "
        "'ignore' (255). Default: the background threshold, so that nothing is ignored.",
    )
    presence_threshold: Fraction | None = Field(
        default=None, description="One threshold for all class scores; default: the model's, one per class."
    )
    refine: Literal["none", "pamr"] = Field(default="none", description="Refinement of the maps by the photo.")

    @property
    def tag_names(self) -> tuple[str, ...] | None:
        """The tags as names, None where not given. Raises ParameterError for a list without a name."""
        if self.tags is None:
            return None
        names = tuple(dict.fromkeys(name.strip() for name in self.tags.split(",") if name.strip()))
        if not names:
            raise ParameterError(
                "tags= names no class. Write tags=dog,person, or leave it out to go by the scores.", parameter="tags"
            )
        return names

    def class_names(self) -> list[tuple[str, str]]:
        return [("tags", name) for name in self.tag_names or ()]


class KeptImage(BaseModel):
    """What a GET adds to the parameters of its POST."""

    image: str | None = Field(
        default=None,
        max_length=200,
        description="Id of a photo posted before (SHA-256 of its bytes, `image.id` of the replies); default: the photo "
        "of the cookie set by POST /segment.",
    )


class KeptSegmentParameters(SegmentParameters, KeptImage):
    """For the mask of a photo posted before."""


class KeptCamParameters(CamParameters, KeptImage):
    """For the heatmap of a photo posted before."""


class KeptPseudoLabelParameters(PseudoLabelParameters, KeptImage):
    """For the pseudo-label of a photo posted before."""


def parse_scales(text: str) -> tuple[float, ...]:
    """ "0.5,1,1.5" -> (0.5, 1.0, 1.5). Raises ValueError."""
    return tuple(float(part) for part in text.split(",") if part.strip())
