"""An ONNX file carries a description of itself: its metadata become a frozen `ModelCard`, and back.

`docs/onnx-contract.md` lists the keys; every field below is one key, stored as JSON text.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.inference.errors import ModelCardError
from app.inference.labels import MAX_CLASSES, MAX_MAP_CLASSES

SCHEMA_VERSION = 1
IMAGE_INPUT = "image"
OUTPUTS = {"cam": ("scores", "cam"), "segmentation": ("logits", "mask")}
TAGS, MASKS = "tags", "masks"  # `taught_by` says this of a weakly and of a fully supervised network.
CLASS_LIMITS = {"cam": MAX_MAP_CLASSES, "segmentation": MAX_CLASSES}


class ModelCard(BaseModel):
    """It says what the service needs to know of a model, besides its weights.

    `synonyms` are further names that requests may call a class by, besides the usual ones (`app.inference.class_names`).
    `preferred_size` is the long side in pixels at which the model is run; `background_threshold` is compared with a
    map in [0, 1]; `presence_thresholds` with `scores`, one per class; a segmenter without them
    gives no `scores`. `presence_weight` says how much a segmenter's `scores` weigh in the labels of pixels. `figures` are percentages
    measured by `python -m training evaluate`, `taught_by` says by what a network learned where things are, such as "tags" or
    "tags + 30 masks", and is empty where that is not stated; `measured_on` says on how many photos of which split. `checksum` is that of
    the file (`app.inference.files.checksum`), empty where it states none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: int = Field(ge=1)
    task: Literal["cam", "segmentation"]
    method: str
    paper: str
    backbone: str
    classes: tuple[str, ...] = Field(min_length=1)
    synonyms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    output_stride: int = Field(ge=1)
    preferred_size: int = Field(ge=32, le=4096)
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    flip: bool = False
    background_threshold: float = Field(default=0.25, ge=0, le=1)
    presence_thresholds: tuple[float, ...] = ()
    presence_weight: float = Field(default=0.0, ge=0, le=10)
    precision: Literal["float32", "float16", "int8"] = "float32"
    data: str
    data_licence: str
    taught_by: str = ""
    figures: dict[str, float] = Field(default_factory=dict)
    measured_on: str = ""
    export_check: dict[str, float] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    commit: str = "unknown"
    seed: int = 0
    created: str = ""
    checksum: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_release(cls, values: Any) -> Any:
        """Say of files that were written before `taught_by` was stated what their run's configuration says."""
        config = values.get("config") if isinstance(values, dict) else None
        if not isinstance(config, dict) or not config or values.get("taught_by"):
            return values
        segmenter = config.get("segmenter")
        by_masks = isinstance(segmenter, dict) and segmenter.get("labels") == "ground-truth"
        return {**values, "taught_by": MASKS if by_masks else TAGS}

    @model_validator(mode="after")
    def _consistent(self) -> "ModelCard":
        if len(self.classes) > (limit := CLASS_LIMITS[self.task]):
            raise ValueError(f"a {self.task} model has at most {limit} classes, this one has {len(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes hold a name twice: {self.classes}")
        if strange := sorted(self.synonyms.keys() - set(self.classes)):
            raise ValueError(f"synonyms are given for {strange[0]!r}, which is no class")
        count = len(self.presence_thresholds)
        if count != len(self.classes) and (count or self.task == "cam"):
            raise ValueError(
                f"presence_thresholds has {count} values, {len(self.classes)} are expected "
                f"(one per class; a segmenter that gives no scores has none)"
            )
        if not all(0 < scale <= 4 for scale in self.scales):
            raise ValueError(f"scales {self.scales} must lie in (0, 4]")
        return self

    def taught_more(self, masks: int) -> str:
        """Return what `taught_by` says of a network that learned on from so many masks in all."""
        return MASKS if self.taught_by == MASKS else f"{TAGS} + {masks} masks"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph has outputs of these names for this task; a segmenter with presence thresholds gives `scores` as well."""
        judged = self.task == "segmentation" and self.presence_thresholds
        return (*OUTPUTS[self.task], "scores") if judged else OUTPUTS[self.task]

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], source: str) -> "ModelCard":
        """Read the `metadata_props` of the ONNX file `source` (named in errors only).

        Raises ModelCardError for a missing or unknown schema version, and for all missing, unknown or malformed keys.
        """
        stated = metadata.get("schema_version")
        if stated is None:
            raise ModelCardError(
                f"{source} carries no 'schema_version' in its metadata: it was not written by "
                f"`python -m training export`. Export it again, or describe it as docs/onnx-contract.md says."
            )
        if stated != str(SCHEMA_VERSION):
            raise ModelCardError(
                f"{source} has schema version {stated!r}; this tag2mask reads version {SCHEMA_VERSION}. "
                f"Export the model again with this release, or serve it with the release that wrote it."
            )
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for key, text in metadata.items():
            try:
                values[key] = json.loads(text)
            except json.JSONDecodeError as error:
                faults[key] = f"'{key}': is not JSON ({error})"
        try:
            card = cls(**values)
        except ValidationError as error:
            for entry in error.errors():
                key, *inner = map(str, entry["loc"] or ("card",))
                faults.setdefault(key, f"'{'.'.join((key, *inner))}': {entry['msg']}")
        if faults:
            raise ModelCardError(f"{source}: metadata key {'; '.join(faults.values())}. Export the model again.")
        return card

    def to_metadata(self) -> dict[str, str]:
        """Return the card as ONNX `metadata_props`: every field, as JSON text."""
        return {key: json.dumps(value) for key, value in self.model_dump(mode="json").items()}
