"""The service's configuration: one frozen object, read from the environment (prefix `TAG2MASK_`) once."""

import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.inference.errors import nearest_name

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

# So many file descriptors are left for models, the log, listening sockets and connections that are taken to be closed.
OTHER_FILES = 160

PREFIX = "TAG2MASK_"
LINK = re.compile(r"(tcp|udp|sctp)://")
OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """Every setting has an environment variable of its name, `TAG2MASK_DEVICE=cpu` for `device`.

    The description of each field is what `docs/settings.md` says of it (`docs/make_settings.py` writes the page).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    host: str = Field(
        default="127.0.0.1", description="The address to listen at; 0.0.0.0 means every address of the machine."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen at; 0 takes any free one.")
    root_path: str = Field(
        default="",
        description="The path prefix under which clients reach the service, such as /tag2mask. Where it is empty, the header "
        "X-Forwarded-Prefix of a trusted proxy says it.",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1,::1",
        description="Addresses or networks of the proxies whose X-Forwarded headers are believed, separated by commas; * "
        "believes everyone.",
    )
    cors_origins: str = Field(
        default="",
        description="The sites whose pages may ask the service from a browser, such as https://example.org, separated by "
        "commas; * means any site.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Messages of this level and above are logged."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="Each line of the log is a JSON object, or text for people."
    )

    models: Path = Field(default=Path("models"), description="The directory that holds NAME/VERSION/model.onnx.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="What the networks run on. auto takes CUDA where it can be had; cuda refuses to start without it.",
    )
    cam_model: str | None = Field(
        default=None,
        description="The cam model (NAME or NAME/VERSION) that answers where a request names none; without it the service "
        "chooses one.",
    )
    segmentation_model: str | None = Field(
        default=None,
        description="The segmentation model (NAME or NAME/VERSION) that answers where a request names none; without it the "
        "service chooses one.",
    )
    models_poll_seconds: float = Field(
        default=5,
        ge=0,
        description="The service looks for new and changed models this often; with 0 it looks at a SIGHUP alone.",
    )
    model_trial_seconds: float = Field(
        default=60,
        gt=0,
        description="A model must load and run for the first times within this time, or it is refused; one that comes while the "
        "service runs is tried in a process of its own.",
    )

    intra_op_threads: int = Field(default=1, ge=1, description="The threads that one photo's network runs on.")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="The photos that are worked on at a time; without it the number of cores divided by "
        "TAG2MASK_INTRA_OP_THREADS.",
    )
    worker_processes: bool = Field(
        default=True,
        description="Every worker is a process of its own, which holds the models and is replaced where it crashes or does not end; "
        "with 0 the workers are threads, which share the models (for a GPU with little memory).",
    )
    queue_size: int = Field(
        default=32,
        ge=0,
        description="The photos that may wait for a worker; one more is answered 503 with Retry-After.",
    )
    queue_seconds: float = Field(
        default=60, gt=0, description="A photo may wait this long for a worker; then its client is answered 504."
    )
    work_seconds: float = Field(
        default=60,
        gt=0,
        description="The work on one photo may take this long; then it is ended, and its client is answered 504.",
    )
    drain_grace_seconds: float = Field(
        default=2, ge=0, description="After a SIGTERM the service goes on listening this long, while /readyz says 503."
    )
    drain_seconds: int = Field(
        default=30,
        ge=0,
        description="After TAG2MASK_DRAIN_GRACE_SECONDS the photos that were taken have this long to be finished.",
    )

    max_upload_bytes: int = Field(default=20_000_000, ge=1, description="A larger upload is answered 413.")
    max_image_pixels: int = Field(
        default=25_000_000, ge=1, description="A photo of more pixels (width x height) is answered 413."
    )
    max_input_pixels: int = Field(
        default=2_000_000, ge=1, description="The images of one request to /v2 may have this many pixels together."
    )
    max_json_bytes: int = Field(
        default=4_000_000,
        ge=1,
        description="The JSON of a request to /v2 or of Label Studio may be this large; tensors go as binary data.",
    )
    max_price: float = Field(
        default=150,
        gt=0,
        description="A request for which the networks would look at more than this many million pixels is answered 422 (docs/operations.md).",
    )
    max_reply_bytes: int = Field(
        default=128_000_000, ge=1, description="A reply that would be larger is answered 422 before it is made."
    )
    store: SecretStr | None = Field(
        default=None,
        description="The Redis in which photos are kept for GET requests, for all replicas of the service: redis://HOST:PORT, "
        "rediss:// for TLS, redis://:PASSWORD@HOST. Without it they are kept in the memory of the process.",
    )
    upload_store_bytes: int = Field(
        default=256_000_000,
        ge=0,
        description="The memory for photos that are kept for GET requests; the photo that was unused for longest makes room, and 0 keeps none.",
    )
    map_store_bytes: int = Field(
        default=64_000_000,
        ge=0,
        description="The memory for what the cam models said of photos, some 200 kB each, so that further maps of a photo need no network; 0 keeps none.",
    )
    upload_ttl_seconds: float = Field(
        default=3600,
        gt=0,
        description="A photo that is kept, and what the models said of it, is forgotten this long after its last use.",
    )

    corrections: Path | None = Field(
        default=None,
        description="The folder that corrected masks go into, with their photos, for training to learn from; without it the service "
        "takes none, and the page has no brush. Whoever may use the service may then write there: set API keys.",
    )

    header_seconds: float = Field(default=10, gt=0, description="A client has this long for the headers of a request.")
    body_seconds: float = Field(
        default=20,
        gt=0,
        description="A client has this long for the body, and a second more for every 50,000 bytes that have come.",
    )
    reply_seconds: float = Field(
        default=20,
        gt=0,
        description="A client has this long to read the reply, and a second more for every 50,000 bytes that it has read.",
    )
    max_connections: int = Field(
        default=400,
        ge=1,
        description="The connections that may be open; fewer where the system allows fewer files (ulimit -n).",
    )
    max_bytes_in_flight: int = Field(
        default=512_000_000, ge=1, description="The memory for all bodies and replies on their way."
    )
    allowed_hosts: str = Field(
        default="",
        description="The host names that are answered, separated by commas; *.example.org means all below example.org, and without any name every host is answered.",
    )
    api_key: SecretStr | None = Field(default=None, description="The API key that python -m app label --server sends.")
    api_keys: SecretStr | None = Field(
        default=None,
        description="The SHA-256 of API keys, NAME:HASH, separated by commas; where one is set, nobody else is served.",
    )
    api_keys_file: Path | None = Field(default=None, description="A file of the same, with NAME HASH on each line.")
    key_requests_per_minute: int = Field(
        default=0, ge=0, description="The requests that each API key may make in a minute; 0 means any number."
    )

    label_studio_url: str | None = Field(
        default=None,
        description="The address of the Label Studio whose tasks get predictions, such as http://localhost:8080.",
    )
    label_studio_token: SecretStr | None = Field(
        default=None, description="A legacy or a personal access token of that Label Studio."
    )
    label_studio_storage: str = Field(
        default="",
        description="The hosts of cloud storage to which that Label Studio may send for photos (its pre-signed addresses), separated by commas; *.example.org means all below example.org.",
    )

    label_studio_project: int | None = Field(
        default=None,
        ge=1,
        description="The project there, by the number in its address, that the page opens photos in; without it the page does not offer it.",
    )

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

    @field_validator("label_studio_url")
    @classmethod
    def _check_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError("an address like http://localhost:8080 is expected")
        return url

    @property
    def worker_count(self) -> int:
        """There are this many inference workers: as set, else one per `intra_op_threads` cores."""
        return self.workers or max(1, available_cores() // self.intra_op_threads)

    @property
    def connection_limit(self) -> int:
        """Open connections: as set, and fewer where the system allows this process too few files."""
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
    """Return a sentence for every variable of the service's prefix that is no setting. Kubernetes' own are none of the
    user's.
    """
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
    """Cores this process may use: its CPU affinity, and a container's CPU quota (cgroup v2) where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
    except (OSError, ValueError):  # Without cgroup v2 there is no quota.
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
