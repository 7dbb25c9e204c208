"""Every error tag2mask raises on purpose, and the HTTP status of those a client may cause.

Tag2MaskError
├── ModelCardError               a model file without a valid description of itself
├── ModelStoreError              the models directory, or a default model, that cannot be served
├── DeviceError                  the device asked for cannot be had
├── AddressError                 the address to listen at cannot be had
├── ServerGoneError              the server that labels a folder does not answer
├── TrainingError                of the offline package
│   ├── ConfigError              a run's configuration
│   └── DataError                a photo, a tag, a list or a mask
└── ServiceError                 an answer to a client: `status` and `title`
    ├── UploadError          400  a body that carries no photo
    │   ├── UnsupportedTypeError      415  neither multipart nor an image type; or a format outside the allow list
    │   ├── UploadTooLargeError       413  more bytes than allowed
    │   ├── SlowBodyError             408  a body that does not arrive in time
    │   ├── TooManyPixelsError        413  more pixels than allowed
    │   └── UndecodableImageError     422  a photo that is damaged or truncated
    ├── ParameterError       422  a query parameter: unknown, malformed or out of range
    │   ├── UnknownClassError         422  a class name the model does not know
    │   ├── TooManyClassesError       422  a label map of more classes than it has labels
    │   ├── PriceError                422  more work than one request may ask for
    │   └── ReplyTooLargeError        422  a result larger than the service sends
    ├── NotAcceptableError   406  nothing the client accepts can be sent
    ├── MissingImageError    400  a GET that names no photo
    ├── UnknownImageError    404  no upload is kept under that id
    ├── UnknownModelError    404  no such model
    │   ├── NoModelForTaskError       404  no model of this task is served
    │   └── WrongTaskError            422  the model named does another task
    ├── SwitchedOffError     403  what this service was started without
    ├── CorrectionError      422  a corrected mask that does not fit its photo, or the masks before it
    ├── NameTakenError       409  a photo's name that another corrected photo has
    ├── NotStoredError       507  what the disk does not take
    ├── UnknownHostError     421  an address under which the service does not answer
    ├── KeyRequiredError     401  no API key, or one that is not known
    ├── WorkTimeError        504  work that was not done in time
    ├── ClientLeftError      499  nobody is there to answer (for the log)
    └── UnavailableError     503  try again: states `retry_after_seconds`
        ├── NotReadyError             503  the models are still loading
        ├── QueueFullError            503  as many photos wait as may wait
        ├── TooManyBytesError         503  the bodies and replies on their way fill the memory for them
        ├── StoreGoneError            503  where uploads are kept cannot be reached
        ├── WorkerLostError           503  the process that worked on the photo has ended
        ├── RateLimitError            429  more requests of one API key than it may send
        └── StoppingError             503  the service is shutting down

A message gives the value, the limit and the remedy, in one or two sentences.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any, ClassVar


class Tag2MaskError(Exception):
    """Base of every error raised on purpose. Every one of them can be sent to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _error_of, (type(self), self.args), self.__dict__


def _error_of(kind: type[Tag2MaskError], arguments: tuple[Any, ...]) -> Tag2MaskError:
    """Return an error of that class without its `__init__`, which may take other arguments than the message."""
    return kind.__new__(kind, *arguments)


class ModelCardError(Tag2MaskError):
    """An ONNX file that does not describe itself as `docs/onnx-contract.md` says."""


class ModelStoreError(Tag2MaskError):
    """The models directory, or a default model, that cannot be served."""


class DeviceError(Tag2MaskError):
    """The execution device asked for cannot be had."""


class AddressError(Tag2MaskError):
    """The address to listen at cannot be had."""


class ServerGoneError(Tag2MaskError):
    """The server that labels a folder does not answer: no photo is to blame, and none after it will fare better."""


class TrainingError(Tag2MaskError):
    """Base of the errors of the offline package."""


class ConfigError(TrainingError):
    """A configuration key or value that cannot work."""


class DataError(TrainingError):
    """A photo, a tag, a list or a mask that cannot be used."""


class ServiceError(Tag2MaskError):
    """Base of the errors a client is told about. `details` become extra members of the problem document."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "The service failed"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the answer."""
        return {}


class UploadError(ServiceError):
    """A body that carries no photo."""

    status = 400
    title = "No photo in the request"


class UnsupportedTypeError(UploadError):
    """A body that is neither multipart nor an image type, or a picture format outside the allow list."""

    status = 415
    title = "Type not supported"


class UploadTooLargeError(UploadError):
    """A body of more bytes than allowed."""

    status = 413
    title = "Upload too large"


class SlowBodyError(UploadError):
    """A body that does not arrive in time."""

    status = 408
    title = "Body too slow"


class TooManyPixelsError(UploadError):
    """A photo of more pixels than allowed."""

    status = 413
    title = "Too many pixels"


class UndecodableImageError(UploadError):
    """A photo that is damaged or truncated."""

    status = 422
    title = "Photo cannot be decoded"


class ParameterError(ServiceError):
    """A query parameter that is unknown, malformed or out of range."""

    status = 422
    title = "Parameter not valid"


class UnknownClassError(ParameterError):
    """A class name the model was not trained on; `known` lists those it was."""

    title = "Unknown class"
    max_listed: ClassVar[int] = 100  # class names in the message

    def __init__(self, name: str, known: tuple[str, ...], parameter: str = "class") -> None:
        nearest = nearest_name(name, known)
        hint = f"Did you mean {nearest!r}? " if nearest else ""
        several = re.split(r"[\s;,]+", name.strip())
        if len(several) > 1 and set(several) <= set(known):
            written = {"class": "Name one class, or all", "tags": f"Write tags={','.join(several)}"}
            hint = f"{written.get(parameter, 'Separate classes by one character throughout: ' + ';'.join(several))}. "
        listed = ", ".join(known) if len(known) <= self.max_listed else f"{len(known)} others; GET /classes lists them"
        super().__init__(
            f"unknown class {name[:80]!r}. {hint}This model knows {listed}.",
            parameter=parameter,
            known=list(known),
            nearest=nearest,
        )
        self.name = name
        self.known = known


class TooManyClassesError(ParameterError):
    """A label map asked of a model that has more classes than uint8 has labels."""

    title = "More classes than labels"


class PriceError(ParameterError):
    """More work than one request may ask for; `price` and `limit` say how much."""

    title = "Request too dear"


class ReplyTooLargeError(ParameterError):
    """A result larger than the service sends in one reply."""

    title = "Reply too large"


class NotAcceptableError(ServiceError):
    """Nothing the client accepts can be sent; `available` lists what can."""

    status = 406
    title = "Nothing acceptable to send"


class MissingImageError(ServiceError):
    """A GET that names no photo, neither by `image=` nor by the cookie."""

    status = 400
    title = "No photo named"


class UnknownImageError(ServiceError):
    """No upload is kept under that id (any more)."""

    status = 404
    title = "Unknown image"


class UnknownModelError(ServiceError):
    """No model of that name or version is served."""

    status = 404
    title = "Unknown model"


class NoModelForTaskError(UnknownModelError):
    """No model of the task that this endpoint needs is served."""

    title = "No model for this task"


class WrongTaskError(UnknownModelError):
    """The model named does another task than this endpoint needs."""

    status = 422
    title = "Model of another task"


class SwitchedOffError(ServiceError):
    """What this service was started without: no request changes that."""

    status = 403
    title = "Not switched on here"


class CorrectionError(ServiceError):
    """A corrected mask that does not fit its photo, or the masks that were corrected before."""

    status = 422
    title = "Correction not taken"


class NameTakenError(ServiceError):
    """A name that another corrected photo has."""

    status = 409
    title = "Name taken"


class NotStoredError(ServiceError):
    """What the service was to keep, and the disk does not take."""

    status = 507
    title = "Not stored"


class UnknownHostError(ServiceError):
    """A host name under which the service does not answer."""

    status = 421
    title = "Host not served"


class KeyRequiredError(ServiceError):
    """A request without an API key, or with one that is not known."""

    status = 401
    title = "API key needed"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Basic realm="tag2mask: the API key is the password", charset="UTF-8"'}


class WorkTimeError(ServiceError):
    """Work that was not done in time."""

    status = 504
    title = "Took too long"


class ClientLeftError(ServiceError):
    """The client closed the connection while its photo waited; seen in the log only."""

    status = 499
    title = "Client left"


class UnavailableError(ServiceError):
    """The service cannot answer now but will: try again after `retry_after_seconds`."""

    status = 503
    title = "Not available now"

    def __init__(self, message: str, retry_after_seconds: int = 1, **details: Any) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, **details)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class NotReadyError(UnavailableError):
    """The models are still being loaded and warmed."""

    title = "Not ready yet"


class QueueFullError(UnavailableError):
    """As many photos are waiting as may wait."""

    title = "Too busy"


class TooManyBytesError(UnavailableError):
    """The bodies and replies that are on their way fill the memory they may take."""

    title = "Too many bytes in flight"


class StoreGoneError(UnavailableError):
    """The Redis in which uploads are kept cannot be reached, or refuses."""

    title = "Kept photos out of reach"


class WorkerLostError(UnavailableError):
    """The process that worked on the photo has ended before it was done, or none is there to work on it."""

    title = "Worker lost"


class RateLimitError(UnavailableError):
    """More requests of one API key than it may send."""

    status = 429
    title = "Too many requests"


class StoppingError(UnavailableError):
    """The service is shutting down and takes no new work."""

    title = "Shutting down"


LIKENESS = 0.6  # Two spellings that are less alike than this, by difflib's ratio, are no slip of the pen.


def reason_of(message: str) -> str:
    """Return what a validator of pydantic says is wrong, without what it puts before our own words."""
    return message.removeprefix("Value error, ")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the entry of `known` spelled most like `name`, or None where none is close."""
    by_folded = {entry.casefold(): entry for entry in known}
    matches = difflib.get_close_matches(name.casefold()[:100], by_folded, n=1, cutoff=LIKENESS)
    return by_folded[matches[0]] if matches else None
