"""All requests share the settings, the models, the kept uploads and maps, and the pool. Nothing here is the state of one request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.inference.errors import StoppingError
from app.runtime.bounded import Bounded
from app.runtime.loading import InThisProcess
from app.runtime.map_store import MapStore
from app.runtime.model_store import ModelStore
from app.runtime.pool import Pool
from app.runtime.settings import Settings
from app.runtime.upload_store import MemoryUploads, RedisUploads, UploadStore
from app.runtime.workers.fleet import Fleet

Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """It holds the parts of a running service. `leaving` is set once it is about to stop, while it still answers."""

    settings: Settings
    models: ModelStore
    uploads: UploadStore
    maps: MapStore
    pool: Pool
    fleet: Fleet
    leaving: Event = field(default_factory=Event)

    @classmethod
    def of(cls, settings: Settings) -> "Service":
        """Build the parts; the models are found but not loaded, and no process is started.

        Raises ModelStoreError, AddressError.
        """
        apart, workers = settings.worker_processes, settings.worker_count
        settings = settings.for_service()
        fleet = Fleet(settings, workers if apart else 0)  # Without workers it tries models, and serves nobody.
        return cls(
            settings,
            ModelStore(settings, fleet if apart else InThisProcess(settings, fleet)),
            uploads_of(settings),
            maps_of(settings),
            Pool(
                workers,
                settings.queue_size,
                settings.work_seconds,
                settings.queue_seconds,
                fleet.perform if apart else None,
            ),
            fleet,
        )

    async def at_store(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return `work(*arguments)`, which asks what is kept: in a thread where that lies on another machine."""
        if self.settings.store is None:
            return work(*arguments)
        return await run_in_threadpool(work, *arguments)

    def close(self) -> None:
        """End the worker processes and take no new jobs: whoever waits for one has been answered, or told that it was not done."""
        self.fleet.close()
        self.pool.close()

    def check_ready(self) -> None:
        """Raise NotReadyError while the models are being loaded, or no worker lives, StoppingError where the service is about to stop."""
        if self.leaving.is_set():
            raise StoppingError("the service is about to stop; send requests to another one.")
        self.models.check_ready()
        self.fleet.check_ready()


def uploads_of(settings: Settings) -> UploadStore:
    """Return where uploads are kept. Raises AddressError."""
    bounds = settings.upload_store_bytes, settings.upload_ttl_seconds
    if settings.store is None:
        return MemoryUploads(*bounds)
    # The client takes a fifth of a second to load, which only those wait for who keep photos there.
    from app.runtime.redis_store import RedisStore, connect

    return RedisUploads(RedisStore(connect(settings.store.get_secret_value()), "uploads", *bounds), bounds[1])


def maps_of(settings: Settings) -> MapStore:
    """Return where what the cam models said is kept. Raises AddressError."""
    bounds = settings.map_store_bytes, settings.upload_ttl_seconds
    if settings.store is None:
        return MapStore(Bounded[bytes](*bounds, len))
    from app.runtime.redis_store import RedisStore, connect  # It takes its time to load, as above.

    return MapStore(RedisStore(connect(settings.store.get_secret_value()), "maps", *bounds))


def service_of(request: Request) -> Service:
    """Return the service that the application of a request was made for."""
    service: Service = request.app.state.service
    return service
