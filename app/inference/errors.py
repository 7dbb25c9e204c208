"""Every error that tag2mask raises on purpose is here, with the HTTP status of those a client may cause.

Tag2MaskError
├── ModelCardError
├── ModelStoreError
├── DeviceError
├── AddressError
├── ServerGoneError
├── TrainingError
│   ├── ConfigError
│   └── DataError
└── ServiceError
    ├── UploadError          400
    │   ├── UnsupportedTypeError      415
    │   ├── UploadTooLargeError       413
    │   ├── SlowBodyError             408
    │   ├── TooManyPixelsError        413
    │   └── UndecodableImageError     422
    ├── ParameterError       422
    │   ├── UnknownClassError         422
    │   ├── TooManyClassesError       422
    │   ├── PriceError                422
    │   └── ReplyTooLargeError        422
    ├── NotAcceptableError   406
    ├── MissingImageError    400
    ├── UnknownImageError    404
    ├── UnknownModelError    404
    │   ├── NoModelForTaskError       404
    │   └── WrongTaskError            422
    ├── SwitchedOffError     403
    ├── CorrectionError      422
    ├── NameTakenError       409
    ├── NotStoredError       507
    ├── UnknownHostError     421
    ├── KeyRequiredError     401
    ├── WorkTimeError        504
    ├── ClientLeftError      499
    └── UnavailableError     503
        ├── NotReadyError             503
        ├── QueueFullError            503
        ├── TooManyBytesError         503
        ├── StoreGoneError            503
        ├── WorkerLostError           503
        ├── RateLimitError            429
        └── StoppingError             503

A message gives the value, the limit and the remedy, in one or two sentences. The docstring of a class says what has happened where
it is raised.
"""

import re
from typing import Any, ClassVar

from app.inference.spelling import nearest_name


class Tag2MaskError(Exception):
    """This is the base of every error raised on purpose. Every one of them can be sent to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _error_of, (type(self), self.args), self.__dict__


def _error_of(kind: type[Tag2MaskError], arguments: tuple[Any, ...]) -> Tag2MaskError:
    """Return an error of that class without its `__init__`, which may take other arguments than the message."""
    return kind.__new__(kind, *arguments)


class ModelCardError(Tag2MaskError):
    """An ONNX file does not describe itself as `docs/onnx-contract.md` says."""


class ModelStoreError(Tag2MaskError):
    """The models directory, or a default model, cannot be served."""


class DeviceError(Tag2MaskError):
    """The execution device asked for cannot be had."""


class AddressError(Tag2MaskError):
    """The address to listen at cannot be had."""


class ServerGoneError(Tag2MaskError):
    """The server that labels a folder does not answer: no photo is to blame, and none after it will fare better."""


class TrainingError(Tag2MaskError):
    """This is the base of the errors of the offline package."""


class ConfigError(TrainingError):
    """A key or value of a run's configuration cannot work."""


class DataError(TrainingError):
    """A photo, a tag, a list or a mask cannot be used."""


class ServiceError(Tag2MaskError):
    """This is the base of the errors a client is told about. `details` become extra members of the problem document.

    A class names its HTTP status and its title behind its base; what it does not name is that of its base.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "The service failed"

    def __init_subclass__(cls, status: int | None = None, title: str | None = None) -> None:
        super().__init_subclass__()
        cls.status = cls.status if status is None else status
        cls.title = cls.title if title is None else title

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details

    @property
    def headers(self) -> dict[str, str]:
        """The answer carries these HTTP headers."""
        return {}


class UploadError(ServiceError, status=400, title="No photo in the request"):
    """The body carries no photo."""


class UnsupportedTypeError(UploadError, status=415, title="Type not supported"):
    """The body is neither multipart nor an image type, or the picture's format is outside the allow list."""


class UploadTooLargeError(UploadError, status=413, title="Upload too large"):
    """The body has more bytes than allowed."""


class SlowBodyError(UploadError, status=408, title="Body too slow"):
    """The body does not arrive in time."""


class TooManyPixelsError(UploadError, status=413, title="Too many pixels"):
    """The photo has more pixels than allowed."""


class UndecodableImageError(UploadError, status=422, title="Photo cannot be decoded"):
    """The photo is damaged or truncated."""


class ParameterError(ServiceError, status=422, title="Parameter not valid"):
    """A query parameter is unknown, malformed or out of range."""


class UnknownClassError(ParameterError, title="Unknown class"):
    """The model was not trained on a class of that name; `known` lists those it was trained on."""

    max_listed: ClassVar[int] = 100  # The message lists this many class names at most.

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


class TooManyClassesError(ParameterError, title="More classes than labels"):
    """A label map is asked of a model that has more classes than uint8 has labels."""


class PriceError(ParameterError, title="Request too dear"):
    """The request asks for more work than one may ask for; `price` and `limit` say how much."""


class ReplyTooLargeError(ParameterError, title="Reply too large"):
    """The result is larger than the service sends in one reply."""


class NotAcceptableError(ServiceError, status=406, title="Nothing acceptable to send"):
    """Nothing the client accepts can be sent; `available` lists what can."""


class MissingImageError(ServiceError, status=400, title="No photo named"):
    """A GET names no photo, neither by `image=` nor by the cookie."""


class UnknownImageError(ServiceError, status=404, title="Unknown image"):
    """No upload is kept under that id (any more)."""


class UnknownModelError(ServiceError, status=404, title="Unknown model"):
    """No model of that name or version is served."""


class NoModelForTaskError(UnknownModelError, title="No model for this task"):
    """No model of the task that this endpoint needs is served."""


class WrongTaskError(UnknownModelError, status=422, title="Model of another task"):
    """The model named does another task than this endpoint needs."""


class SwitchedOffError(ServiceError, status=403, title="Not switched on here"):
    """The service was started without what is asked of it: no request changes that."""


class CorrectionError(ServiceError, status=422, title="Correction not taken"):
    """A corrected mask does not fit its photo, or the masks that were corrected before."""


class NameTakenError(ServiceError, status=409, title="Name taken"):
    """Another corrected photo has that name."""


class NotStoredError(ServiceError, status=507, title="Not stored"):
    """The disk does not take what the service was to keep."""


class UnknownHostError(ServiceError, status=421, title="Host not served"):
    """The service does not answer under that host name."""


class KeyRequiredError(ServiceError, status=401, title="API key needed"):
    """The request has no API key, or one that is not known."""

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Basic realm="tag2mask: the API key is the password", charset="UTF-8"'}


class WorkTimeError(ServiceError, status=504, title="Took too long"):
    """The work was not done in time."""


class ClientLeftError(ServiceError, status=499, title="Client left"):
    """The client closed the connection while its photo waited or was worked on; only the log shows this."""


class UnavailableError(ServiceError, status=503, title="Not available now"):
    """The service cannot answer now but will: try again after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int = 1, **details: Any) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, **details)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class NotReadyError(UnavailableError, title="Not ready yet"):
    """The models are still being loaded and warmed."""


class QueueFullError(UnavailableError, title="Too busy"):
    """As many photos are waiting as may wait."""


class TooManyBytesError(UnavailableError, title="Too many bytes in flight"):
    """The bodies and replies that are on their way fill the memory they may take."""


class StoreGoneError(UnavailableError, title="Kept photos out of reach"):
    """The Redis in which uploads are kept cannot be reached, or refuses."""


class WorkerLostError(UnavailableError, title="Worker lost"):
    """The process that worked on the photo ended before it was done, or no process is there to work on it."""


class RateLimitError(UnavailableError, status=429, title="Too many requests"):
    """One API key has sent more requests than it may send."""


class StoppingError(UnavailableError, title="Shutting down"):
    """The service is shutting down and takes no new work."""


def reason_of(message: str) -> str:
    """Return what a validator of pydantic says is wrong, without what it puts before our own words."""
    return message.removeprefix("Value error, ")
