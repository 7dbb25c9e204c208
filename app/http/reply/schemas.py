"""The JSON replies have these fields. Their names are those on the wire, except `class`, a word of Python: `class_name` here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.inference.label_maps.regions import Region, RunLengths


class Reply(BaseModel):
    """All replies have this base."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)


class ImageInfo(Reply):
    """It says which photo it was. Width and height are the upload's, in pixels, after EXIF orientation.

    `note` stands there where the file was read although something is wrong with it, as with a JPEG that lacks its end.
    """

    id: str
    width: int
    height: int
    note: str | None = Field(default=None, exclude_if=lambda note: note is None)


class ModelInfo(Reply):
    """It says which model answered. `sha256` is that of its ONNX file."""

    name: str
    version: int
    sha256: str
    method: str


class Thresholds(Reply):
    """These thresholds were in use. `probability` is a mask's (0: the arg-max over the classes), `background` and `foreground` are those
    of maps. `presence` holds, by class, the score from which the whole photo is held to show it, each class its own; it is empty where
    tags say what is there.
    """

    probability: float | None = None
    background: float | None = None
    foreground: float | None = None
    presence: dict[str, float] = Field(default_factory=dict)


class Provenance(Reply):
    """It says how a result came about; every reply about a photo holds it.

    `fused_with`: the other models whose maps are part of it. `left_out`: the models (NAME/VERSION) that `fuse=all` leaves out, since they
    know other classes. `tags`: the classes the request knew to be in the photo, null
    where it named none.
    """

    image: ImageInfo
    model: ModelInfo
    fused_with: list[ModelInfo] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list)
    tags: list[str] | None = None
    thresholds: Thresholds
    refinement: Literal["none", "pamr"]


class SegmentReply(Provenance):
    """It describes a mask. `classes` are those found, largest first; `score` is the mean probability over the class's pixels.

    `scores` are the probabilities, by class, that the whole photo shows it; a class gets pixels where its score reaches
    `thresholds.presence`. They are empty of a model that gives none.
    """

    scores: dict[str, float]
    classes: list[Region]
    scales: list[float]
    flip: bool
    links: dict[str, str | dict[str, str]]
    timings_ms: dict[str, float]


class MapInfo(Reply):
    """It describes the heatmap of one class. `present` says that the photo is held to show it: its score reaches
    `presence_threshold`, which is the class's own, or it is one of the tags, with which that is null. `links` lead to the map
    by format.
    """

    class_name: str = Field(alias="class")
    label: int
    score: float
    presence_threshold: float | None
    present: bool
    links: dict[str, str]


class CamReply(Provenance, MapInfo):
    """It describes one heatmap; the map itself comes under `links`."""

    inference: Literal["plain", "class-conditional"]
    scales: list[float]
    flip: bool
    timings_ms: dict[str, float]


class CamsReply(Provenance):
    """It describes the heatmaps of all classes (`class=all`), in the order of the model's channels."""

    class_name: Literal["all"] = Field(default="all", alias="class")
    classes: list[MapInfo]
    links: dict[str, str]
    inference: Literal["plain", "class-conditional"]
    scales: list[float]
    flip: bool
    timings_ms: dict[str, float]


class IgnoredPixels(Reply):
    """It says which pixels are labelled 255, "ignore"; `rle` is null where there are none."""

    pixels: int
    share: float
    rle: RunLengths | None = None


class PseudoLabelReply(Provenance):
    """It describes a pseudo-label. `present` lists the classes it may hold."""

    present: list[str]
    scores: dict[str, float]
    inference: Literal["plain", "class-conditional"]
    scales: list[float]
    flip: bool
    classes: list[Region]
    ignore: IgnoredPixels
    links: dict[str, str | dict[str, str]]
    timings_ms: dict[str, float]


class AnalyzeReply(Reply):
    """It holds all results of one photo: what `/segment`, `/cam?class=all` and `/pseudo-label` answer. The mask is null where no
    segmentation model is served.
    """

    image: ImageInfo
    segment: SegmentReply | None
    cam: CamsReply
    pseudo_label: PseudoLabelReply
    timings_ms: dict[str, float]


class ServedModel(Reply):
    """It describes one model: its card, its file and where it runs. `default` says that it is used where a request names no model."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: int
    task: Literal["cam", "segmentation"]
    method: str
    classes: list[str]
    default: bool
    sha256: str
    providers: list[str]


class RefusedModel(Reply):
    """It names a file in the models directory that is not served as it is now; an earlier one of its name and version may be.

    `version` is null where the file lies in no folder of a version, `NAME/VERSION/model.onnx`.
    """

    name: str
    version: int | None
    reason: str


class ModelsReply(Reply):
    """It lists all models served, and what lies beside them and cannot be served."""

    models: list[ServedModel]
    refused: list[RefusedModel]


class ClassInfo(Reply):
    """It describes one class. `label` is its value in masks, `color` its colour in PNGs and overlays, `display_color` a brighter one that
    is easier to tell from a photo and from other classes.
    """

    class_name: str = Field(alias="class")
    label: int
    color: str
    display_color: str


class ClassesReply(Reply):
    """It lists the classes of a model; background and ignore stand apart."""

    model: ModelInfo
    classes: list[ClassInfo]
    background: int
    ignore: int


class CorrectionReply(Reply):
    """It says of a corrected mask under which name it is kept, over which model's draft it was drawn, and which classes it shows."""

    image: ImageInfo
    name: str
    model: ModelInfo
    classes: list[str]
    pixels_changed: int | None


class Status(Reply):
    """It says that the service is alive, or ready."""

    status: Literal["alive", "ready"]


class Problem(BaseModel):
    """It describes an error (RFC 9457, application/problem+json). `detail` states the value, the limit and the remedy."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str

    @classmethod
    def of(cls, kind: str, title: str, status: int, detail: str, details: dict[str, Any]) -> "Problem":
        return cls(type=f"urn:tag2mask:{kind}", title=title, status=status, detail=detail, **details)
