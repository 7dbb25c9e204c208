"""The service's configuration is one frozen object, read from the environment (prefix `TAG2MASK_`) once."""

import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.inference.spelling import nearest_name

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

# So many file descriptors are left for models, the log, listening sockets and connections that are taken to be closed.
OTHER_FILES = 160
# The service's networks run on this many threads. A photo that is alone is done in three quarters of the time, and where all cores are busy a second
# thread costs 2 %; more threads gain little in networks this small.
SERVICE_THREADS = 2

PREFIX = "TAG2MASK_"
LINK = re.compile(r"(tcp|udp|sctp)://")
OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """Every setting has an environment variable of its name, `TAG2MASK_DEVICE=cpu` for `device`.

    The sentence below each field is what `docs/settings.md` says of it (`docs/make_settings.py` writes the page).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    """The service listens at this address; 0.0.0.0 means every address of the machine."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The service listens at this port; 0 takes any free one."""
    root_path: str = ""
    """Clients reach the service under this path prefix, such as /tag2mask. Where it is empty, the header X-Forwarded-Prefix of a trusted
    proxy says it."""
    trusted_proxies: str = "127.0.0.1,::1"
    """The X-Forwarded headers of proxies at these addresses or networks, separated by commas, are believed; * believes everyone."""
    cors_origins: str = ""
    """The pages of these sites, such as https://example.org, separated by commas, may ask the service from a browser; * means any site."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Messages of this level and above are logged."""
    log_format: Literal["json", "text"] = "json"
    """Each line of the log is a JSON object, or text for people."""
    traces: str | None = None
    """Requests are traced to the OpenTelemetry collector at this address, such as http://localhost:4318 (OTLP over HTTP; it needs the extra
    traces); OTEL_TRACES_SAMPLER and the like are heeded."""

    models: Path = Path("models")
    """This directory holds the models as NAME/VERSION/model.onnx."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The networks run on this device. auto takes CUDA where it can be had; cuda refuses to start without it."""
    cam_model: str | None = None
    """This cam model (NAME or NAME/VERSION) answers where a request names none; without it the service chooses one."""
    segmentation_model: str | None = None
    """This segmentation model (NAME or NAME/VERSION) answers where a request names none; without it the service chooses one."""
    models_poll_seconds: float = Field(default=5, ge=0)
    """The service looks for new and changed models this often; with 0 it looks at a SIGHUP alone."""
    model_trial_seconds: float = Field(default=60, gt=0)
    """A model must load and run for the first times within this time, or it is refused; one that comes while the service runs is tried in a
    process of its own."""

    intra_op_threads: int | None = Field(default=None, ge=1)
    """The network of one photo runs on this many threads; without it on two while the service has two cores, and on one where a folder is
    labelled."""
    workers: int | None = Field(default=None, ge=1)
    """This many photos are worked on at a time; without it the number of cores divided by TAG2MASK_INTRA_OP_THREADS is taken."""
    worker_processes: bool = True
    """Every worker is a process of its own, which holds the models and is replaced where it crashes or does not end; with 0 the workers are
    threads, which share the models (for a GPU with little memory)."""
    queue_size: int = Field(default=32, ge=0)
    """This many photos may wait for a worker; one more is answered 503 with Retry-After."""
    queue_seconds: float = Field(default=60, gt=0)
    """A request has this long besides TAG2MASK_WORK_SECONDS, for waiting and work together; then its client is answered 504."""
    work_seconds: float = Field(default=60, gt=0)
    """The work on one photo may take this long; then it is ended, and its client is answered 504."""
    drain_grace_seconds: float = Field(default=2, ge=0)
    """After a SIGTERM the service goes on listening this long, while /readyz says 503."""
    drain_seconds: int = Field(default=30, ge=0)
    """After TAG2MASK_DRAIN_GRACE_SECONDS the photos that were taken have this long to be finished."""

    max_upload_bytes: int = Field(default=20_000_000, ge=1)
    """A larger upload is answered 413."""
    max_image_pixels: int = Field(default=25_000_000, ge=1)
    """A photo of more pixels (width x height) is answered 413."""
    max_input_pixels: int = Field(default=2_000_000, ge=1)
    """The images of one request to /v2 may have this many pixels together."""
    max_json_bytes: int = Field(default=4_000_000, ge=1)
    """The JSON of a request to /v2 or of Label Studio may be this large; tensors go as binary data."""
    max_price: float = Field(default=150, gt=0)
    """A request for which the networks would look at more than this many million pixels is answered 422 (docs/operations.md)."""
    max_reply_bytes: int = Field(default=128_000_000, ge=1)
    """A reply that would be larger is answered 422 before it is made."""
    store: SecretStr | None = None
    """Photos are kept for GET requests in this Redis, for all replicas of the service: redis://HOST:PORT, rediss:// for TLS,
    redis://:PASSWORD@HOST. Without it they are kept in the memory of the process."""
    upload_store_bytes: int = Field(default=256_000_000, ge=0)
    """Photos that are kept for GET requests take this much memory; the photo that was unused for longest makes room, and 0 keeps none."""
    map_store_bytes: int = Field(default=64_000_000, ge=0)
    """What the cam models said of photos, some 200 kB each, takes this much memory, so that further maps of a photo need no network; 0
    keeps none."""
    upload_ttl_seconds: float = Field(default=3600, gt=0)
    """A photo that is kept, and what the models said of it, is forgotten this long after its last use."""

    corrections: Path | None = None
    """Corrected masks go into this folder, with their photos, for training to learn from; without it the service takes none, and the page
    has no brush. Whoever may use the service may then write there: set API keys."""

    header_seconds: float = Field(default=10, gt=0)
    """A client has this long for the headers of a request."""
    body_seconds: float = Field(default=20, gt=0)
    """A client has this long for the body, and a second more for every 50,000 bytes that have come."""
    reply_seconds: float = Field(default=20, gt=0)
    """A client has this long to read the reply, and a second more for every 50,000 bytes that it has read."""
    max_connections: int = Field(default=400, ge=1)
    """This many connections may be open; it is fewer where the system allows fewer files (ulimit -n)."""
    max_bytes_in_flight: int = Field(default=512_000_000, ge=1)
    """All bodies and replies on their way may take this much memory."""
    allowed_hosts: str = ""
    """Requests for these host names, separated by commas, are answered; *.example.org means all below example.org, and without any name
    every host is answered."""
    api_key: SecretStr | None = None
    """python -m app label --server sends this API key."""
    api_keys: SecretStr | None = None
    """Only who sends one of these API keys is served, where any is set: the SHA-256 of each as NAME:HASH, separated by commas."""
    api_keys_file: Path | None = None
    """This file holds API keys in the same way, with NAME HASH on each line."""
    key_requests_per_minute: int = Field(default=0, ge=0)
    """Each API key may make this many requests in a minute; 0 means any number."""

    label_studio_url: str | None = None
    """The tasks of the Label Studio at this address, such as http://localhost:8080, get predictions."""
    label_studio_token: SecretStr | None = None
    """The service signs in there with this token, a legacy or a personal access token of that Label Studio."""
    label_studio_storage: str = ""
    """That Label Studio may send for photos to these hosts of cloud storage (its pre-signed addresses), separated by commas;
    *.example.org means all below example.org."""
    label_studio_project: int | None = Field(default=None, ge=1)
    """The page opens photos in this project there, and corrections come from it, by the number in its address; without it neither is
    offered."""

    @field_validator("port", mode="before")
    @classmethod
    def _leave_out_links(cls, port: object) -> object:
        """Kubernetes puts TAG2MASK_PORT=tcp://ADDRESS:PORT into every pod beside a Service named tag2mask."""
        return cls.model_fields["port"].default if isinstance(port, str) and LINK.match(port) else port

    @field_validator("root_path")
    @classmethod
    def _check_prefix(cls, path: str) -> str:
        if path.strip("/") and not re.fullmatch(r"(/[^/?#\s]+)+/?", path):
            raise ValueError("a path like /tag2mask is expected")
        return path.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: str) -> str:
        for entry in separated(proxies):
            if entry != "*":
                try:
                    ipaddress.ip_network(entry, strict=False)
                except ValueError:
                    raise ValueError(f"{entry!r} is no address or network, such as 10.0.0.0/8") from None
        return proxies

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: str) -> str:
        for entry in separated(origins):
            if entry != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", entry):
                raise ValueError(f"{entry!r} is no origin, such as https://example.org, without a path")
        return origins

    @field_validator("label_studio_url", "traces")
    @classmethod
    def _check_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError("an address like http://localhost:8080 is expected")
        return url

    @property
    def worker_count(self) -> int:
        """There are this many inference workers: as set, else one per `network_threads`."""
        return self.workers or max(1, available_cores() // self.network_threads)

    @property
    def network_threads(self) -> int:
        """The network of one photo runs on so many threads: as set, else on one."""
        return self.intra_op_threads or 1

    def for_service(self) -> "Settings":
        """Return them with the threads of a network set: a photo that is alone is done sooner by two, on cores of other workers."""
        if self.intra_op_threads is not None:
            return self
        return self.model_copy(update={"intra_op_threads": min(SERVICE_THREADS, available_cores())})

    @property
    def connection_limit(self) -> int:
        """So many connections may be open: as set, and fewer where the system allows this process too few files."""
        if resource is None:
            return self.max_connections
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.max_connections if files < 0 else max(1, min(self.max_connections, files - OTHER_FILES))


def separated(text: str) -> list[str]:
    """Return the entries of a list separated by commas."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def is_named(host: str, names: Collection[str]) -> bool:
    """Tell whether a host, in lower case, is one of those named; `*.example.org` stands for all names that end so."""
    parents = ("*." + host.split(".", number)[-1] for number in range(1, host.count(".") + 1))
    return host in names or any(pattern in names for pattern in parents)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for every variable of the service's prefix that is no setting; those that Kubernetes sets are left out."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    sentences = []
    for name, value in sorted(environment.items()):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not is_of_kubernetes(name, value):
            nearest = nearest_name(name[len(PREFIX) :], Settings.model_fields)
            hint = f"Did you mean {PREFIX}{nearest.upper()}?" if nearest else "`python -m app --help` lists them."
            sentences.append(f"{name} is no setting, and does nothing. {hint}")
    return sentences


def is_of_kubernetes(name: str, value: str) -> bool:
    """Tell whether Kubernetes set a variable, for a Service whose name begins with tag2mask."""
    return bool(LINK.match(value) or OF_SERVICES.search(name))


def available_cores() -> int:
    """Return the number of cores this process may use: its CPU affinity, and a container's CPU quota (cgroup v2) where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
    except (OSError, ValueError):  # Without cgroup v2 there is no quota.
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
