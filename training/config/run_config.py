"""A run's configuration is one TOML file, whose tables (`training.config.tables`) are checked against one another."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.inference.errors import ConfigError
from app.inference.spelling import nearest_name
from training.config.data import DataConfig
from training.config.learning import Section
from training.config.map_tables import ClassifierConfig, LocalizeConfig, RefineConfig
from training.config.tables import ExportConfig, NeedsConfig, PseudoLabelConfig, SaliencyConfig, SegmenterConfig
from training.label_rules import RULES


class RunConfig(Section):
    """It describes a whole run. `out` receives everything it makes; `saliency`, `refine` and `segmenter` may be left out."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,40}$")
    out: Path
    data: DataConfig
    needs: NeedsConfig = NeedsConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    localize: LocalizeConfig = LocalizeConfig()
    saliency: SaliencyConfig | None = None
    refine: RefineConfig | None = None
    pseudo_label: PseudoLabelConfig = PseudoLabelConfig()
    segmenter: SegmenterConfig | None = None
    export: ExportConfig = ExportConfig()

    @property
    def supervised(self) -> bool:
        """It tells whether this is the fully supervised upper bound, which trains no classifier."""
        return self.segmenter is not None and self.segmenter.labels == "ground-truth"

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        name = self.pseudo_label.rule
        rule, segmenter = RULES[name], self.segmenter
        if (
            segmenter is not None
            and self.supervised
            and (segmenter.weights == "classifier" or segmenter.rounds > 1 or segmenter.options.get("saliency_weight"))
        ):
            raise ValueError(
                'segmenter.labels = "ground-truth" trains no classifier, makes no maps and takes one round: name a file of '
                "weights (another run's classifier/weights.pt), and leave `rounds` and options.saliency_weight out"
            )
        if segmenter is not None and self.supervised and segmenter.corrections is not None:
            raise ValueError(
                'segmenter.labels = "ground-truth" teaches every mask there is already; leave segmenter.corrections out'
            )
        if self.segmenter and self.segmenter.rounds > 1 and not rule.blends:
            blending = " and ".join(f'"{known}"' for known, other in RULES.items() if other.blends)
            raise ValueError(
                f'segmenter.rounds blends masks with maps, which pseudo_label.rule = "{name}" does not read: {blending} does'
            )
        if self.segmenter and self.segmenter.rounds > 1 and self.pseudo_label.foreground_threshold is not None:
            raise ValueError(
                "segmenter.rounds puts the probability one half at the one threshold of the maps; leave "
                "pseudo_label.foreground_threshold out"
            )
        if self.pseudo_label.reads_saliency and self.saliency is None:
            what = f'rule = "{name}"' if rule.reads_saliency else "saliency_share"
            raise ValueError(f"pseudo_label.{what} needs a [saliency] table: a folder, or an estimate")
        if wrong := rule.check(self):
            raise ValueError(wrong)
        if self.refine and self.refine.method == "drs" and self.localize.inference != "plain":
            raise ValueError(
                'refine.method = "drs" learns plain maps, which it makes itself; set localize.inference = "plain"'
            )
        if self.export.background_threshold == "saliency":
            if self.saliency is None:
                raise ValueError(
                    'export.background_threshold = "saliency" needs a [saliency] table: a folder, or an estimate'
                )
            if self.localize.inference != "plain":
                raise ValueError(
                    'export.background_threshold = "saliency" measures the maps that are served, plain ones; set '
                    'localize.inference = "plain", or give it a number'
                )
        if self.segmenter and self.segmenter.options.get("saliency_weight") and self.saliency is None:
            raise ValueError("segmenter.options.saliency_weight needs a [saliency] table: a folder, or an estimate")
        return self


S = TypeVar("S", bound=BaseModel)


def read_config(kind: type[S], path: Path, overrides: list[str] | None = None) -> S:
    """Read a TOML file into `kind`; `overrides` are "table.key=value" with TOML values.

    Raises ConfigError that names the key, the value and what is allowed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read ({error}); see experiments/ for ready ones") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for override in overrides or []:
        _set(values, override)
    return validate_config(kind, values, str(path))


def validate_config(kind: type[S], values: dict[str, Any], source: str) -> S:
    """Check `values` against `kind`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {said_of(kind, e)} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def said_of(kind: type[BaseModel], error: ErrorDetails) -> str:
    """Return what is wrong with a value; of a key that is not known also the known one spelled most like it."""
    if error["type"] != "extra_forbidden":
        return error["msg"]
    *tables, key = map(str, error["loc"])
    known = keys_of(kind, tables)
    nearest = nearest_name(key, known)
    hint = f"; did you mean {nearest!r}?" if nearest else f"; the keys are {', '.join(known)}" if known else ""
    return f"there is no such key{hint}"


def keys_of(kind: type[BaseModel], tables: list[str]) -> list[str]:
    """Return the keys of the table under a path of tables; none where the path leads elsewhere than to one table."""
    for table in tables:
        annotation = kind.model_fields[table].annotation if table in kind.model_fields else None
        inner = [
            part
            for part in (annotation, *get_args(annotation))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if len(inner) != 1:
            return []
        kind = inner[0]
    return list(kind.model_fields)


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r} is not table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # A bare word is a string.
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override!r}: {table} is not a table")
    values[last] = value
