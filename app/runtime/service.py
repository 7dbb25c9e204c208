"""What all requests share: the settings, the models, the kept uploads and the pool. Holds no state of a request."""

from dataclasses import dataclass

from starlette.requests import Request

from app.runtime.model_store import ModelStore
from app.runtime.pool import Pool
from app.runtime.settings import Settings
from app.runtime.upload_store import UploadStore


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    settings: Settings
    models: ModelStore
    uploads: UploadStore
    pool: Pool

    @classmethod
    def of(cls, settings: Settings) -> "Service":
        """Build the parts; the models are found but not loaded. Raises ModelStoreError."""
        return cls(
            settings,
            ModelStore(settings),
            UploadStore(settings.upload_store_bytes, settings.upload_ttl_seconds),
            Pool(settings.worker_count, settings.queue_size),
        )


def service_of(request: Request) -> Service:
    """The service that the application of a request was made for."""
    service: Service = request.app.state.service
    return service
