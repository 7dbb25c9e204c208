"""A query string is read so: every name in it is known and stands there once, and lists become values."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    model_validator,
)
from starlette.requests import Request

from app.inference.errors import ParameterError
from app.inference.spelling import nearest_name

MAX_SCALES = 6
SCALE_RANGE = (0.25, 2.0)


class Parameters(BaseModel):
    """All parameters have this base: an unknown name is refused with the known ones, and so is a missing `class`."""

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
    """Endpoints that take no parameters have these."""


@dataclass(frozen=True)
class ScalesText:
    """It holds factors of the network's input size, and the text that named them, which stands in links as the client wrote it."""

    text: str
    factors: tuple[float, ...]

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> "ScalesText":
        """Return the scales of a text: "0.5,1,1.5" -> (0.5, 1.0, 1.5). Raises ValueError."""
        try:
            factors = tuple(float(part) for part in text.split(",") if part.strip())
        except ValueError:
            factors = ()
        low, high = SCALE_RANGE
        if not 0 < len(factors) <= MAX_SCALES or not all(low <= factor <= high for factor in factors):
            raise ValueError(f"1 to {MAX_SCALES} numbers from {low:g} to {high:g}, separated by commas, are expected")
        return cls(text, factors)


# A parameter of this type is text to its clients and parsed once, where it is checked.
Scales = Annotated[
    ScalesText,
    GetPydanticSchema(
        lambda _, schema_of: schema_of(
            Annotated[
                str, Field(max_length=100), AfterValidator(ScalesText.parse), PlainSerializer(str, return_type=str)
            ]
        )
    ),
]


def parse_names(text: str | None, parameter: str, remedy: str) -> tuple[str, ...] | None:
    """Return the names of a list, each once: "dog, person,dog" -> ("dog", "person"); None for None.

    Raises ParameterError for a list without a name.
    """
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        what = "class" if parameter == "tags" else "model"
        raise ParameterError(f"{parameter}= names no {what}. {remedy}", parameter=parameter)
    return names


async def refuse_repeated(request: Request) -> None:
    """Refuse a query parameter given twice: only one of the values could be heeded.

    It waits for nothing: it is a coroutine because FastAPI hands every other dependency to a thread.
    """
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen:
            raise ParameterError(f"the query parameter {name[:80]!r} is given more than once.", parameter=name[:80])
        seen.add(name)
