"""What all requests share: the settings, the models, the kept uploads and the pool. Holds no state of a request."""

from dataclasses import dataclass, field
from threading import Event

from starlette.requests import Request

from app.inference.errors import StoppingError
from app.runtime.model_store import ModelStore
from app.runtime.pool import Pool
from app.runtime.settings import Settings
from app.runtime.upload_store import MemoryUploads, RedisUploads, UploadStore


@dataclass(frozen=True)
class Service:
    """The parts of a running service. `leaving` is set once it is about to stop, while it still answers."""

    settings: Settings
    models: ModelStore
    uploads: UploadStore
    pool: Pool
    leaving: Event = field(default_factory=Event)

    @classmethod
    def of(cls, settings: Settings) -> "Service":
        """Build the parts; the models are found but not loaded. Raises ModelStoreError, AddressError."""
        return cls(
            settings,
            ModelStore(settings),
            uploads_of(settings),
            Pool(settings.worker_count, settings.queue_size, settings.work_seconds, settings.queue_seconds),
        )

    def check_ready(self) -> None:
        """Raise NotReadyError while the models are being loaded, StoppingError where the service is about to stop."""
        if self.leaving.is_set():
            raise StoppingError("the service is about to stop; send requests to another one.")
        self.models.check_ready()


def uploads_of(settings: Settings) -> UploadStore:
    """Return where uploads are kept. Raises AddressError."""
    bounds = settings.upload_store_bytes, settings.upload_ttl_seconds
    if settings.store is None:
        return MemoryUploads(*bounds)
    # The client takes a fifth of a second to load, which only those wait for who keep photos there.
    from app.runtime.redis_store import RedisStore, connect

    return RedisUploads(RedisStore(connect(settings.store.get_secret_value()), "uploads", *bounds), bounds[1])


def service_of(request: Request) -> Service:
    """Return the service that the application of a request was made for."""
    service: Service = request.app.state.service
    return service
