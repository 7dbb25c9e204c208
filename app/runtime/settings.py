"""The service's configuration: one frozen object, read from the environment (prefix `TAG2MASK_`) once."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.inference.errors import nearest_name

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

OTHER_FILES = (
    160  # file descriptors left for models, log, listening sockets and connections that are taken to be closed
)

PREFIX = "TAG2MASK_"
LINK = re.compile(r"(tcp|udp|sctp)://")
OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """Every setting has an environment variable of its name, `TAG2MASK_DEVICE=cpu` for `device`.

    `cam_model` and `segmentation_model` ("NAME" or "NAME/VERSION") are the models used where a request names none.
    `models` is looked at again every `models_poll_seconds` (0: never) and at a SIGHUP.
    `workers` photos are worked on at a time (default: cores / `intra_op_threads`); `queue_size` more may wait.
    `max_price` bounds the work of one request (`app.http.price`), `work_seconds` the time of its work, `queue_seconds` the time
    before that; `max_json_bytes` the JSON bodies of /v2 and Label Studio, `max_input_pixels` the images of a /v2 request together.
    `header_seconds`, `body_seconds`, `reply_seconds` and `max_connections` bound what a client does to its connection
    (`app.guard.connections`, `app.guard.flow`), `max_bytes_in_flight` all bodies and replies together.
    `allowed_hosts` are the host names that are answered, separated by commas; none named means all.
    `api_key` is what `label --server` sends; `api_keys`, `api_keys_file` and `key_requests_per_minute` (0: any number) are for `app.guard.keys`.
    `drain_grace_seconds` lie between SIGTERM and the end of listening, `drain_seconds` are left to finish in after that.
    `model_trial_seconds` is how long a model may take to load and warm; one that comes while the service runs is tried in a process
    of its own first.
    `root_path` is the path prefix the service is reached under, such as /tag2mask; where it is empty, the header
    X-Forwarded-Prefix of `trusted_proxies` (addresses or networks, separated by commas; * trusts everyone) says it.
    `cors_origins` (separated by commas; * is any) are the sites whose pages may ask the service from a browser.
    `label_studio_url` and `label_studio_token` are the Label Studio whose tasks get predictions (`app.protocols.label_studio.routes`).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = ""
    trusted_proxies: str = "127.0.0.1,::1"
    cors_origins: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    models: Path = Path("models")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cam_model: str | None = None
    segmentation_model: str | None = None
    models_poll_seconds: float = Field(default=5, ge=0)
    model_trial_seconds: float = Field(default=60, gt=0)

    intra_op_threads: int = Field(default=1, ge=1)
    workers: int | None = Field(default=None, ge=1)
    queue_size: int = Field(default=32, ge=0)
    queue_seconds: float = Field(default=60, gt=0)
    work_seconds: float = Field(default=60, gt=0)
    drain_grace_seconds: float = Field(default=2, ge=0)
    drain_seconds: int = Field(default=30, ge=0)

    max_upload_bytes: int = Field(default=20_000_000, ge=1)
    max_image_pixels: int = Field(default=25_000_000, ge=1)
    max_input_pixels: int = Field(default=2_000_000, ge=1)
    max_json_bytes: int = Field(default=4_000_000, ge=1)
    max_price: float = Field(default=150, gt=0)
    max_reply_bytes: int = Field(default=128_000_000, ge=1)
    upload_store_bytes: int = Field(default=256_000_000, ge=0)
    upload_ttl_seconds: float = Field(default=3600, gt=0)

    header_seconds: float = Field(default=10, gt=0)
    body_seconds: float = Field(default=20, gt=0)
    reply_seconds: float = Field(default=20, gt=0)
    max_connections: int = Field(default=400, ge=1)
    max_bytes_in_flight: int = Field(default=512_000_000, ge=1)
    allowed_hosts: str = ""
    api_key: SecretStr | None = None
    api_keys: SecretStr | None = None
    api_keys_file: Path | None = None
    key_requests_per_minute: int = Field(default=0, ge=0)

    label_studio_url: str | None = None
    label_studio_token: SecretStr | None = None

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
        """Inference workers: as set, else one per `intra_op_threads` cores."""
        return self.workers or max(1, available_cores() // self.intra_op_threads)

    @property
    def connection_limit(self) -> int:
        """Open connections: as set, and fewer where the system allows this process too few files."""
        if resource is None:
            return self.max_connections
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.max_connections if files < 0 else max(1, min(self.max_connections, files - OTHER_FILES))


def separated(text: str) -> list[str]:
    """The entries of a list separated by commas."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence for every variable of the service's prefix that is no setting. Kubernetes' own are none of the user's."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    sentences = []
    for name, value in sorted(environment.items()):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not is_of_kubernetes(name, value):
            nearest = nearest_name(name[len(PREFIX) :], Settings.model_fields)
            hint = f"Did you mean {PREFIX}{nearest.upper()}?" if nearest else "`python -m app --help` lists them."
            sentences.append(f"{name} is no setting, and does nothing. {hint}")
    return sentences


def is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes set a variable, for a Service whose name begins with tag2mask."""
    return bool(LINK.match(value) or OF_SERVICES.search(name))


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, and a container's CPU quota (cgroup v2) where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here: no quota
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
