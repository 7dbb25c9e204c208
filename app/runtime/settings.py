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

    intra_op_threads: int = Field(default=1, ge=1, description="The threads that one photo's network runs on.")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="The photos that are worked on at a time; without it the number of cores divided by "
        "TAG2MASK_INTRA_OP_THREADS.",
    )
    queue_size: int = Field(
        default=32,
        ge=0,
        description="The photos that may wait for a worker; one more is answered 503 with Retry-After.",
    )
    drain_seconds: int = Field(
        default=30, ge=0, description="After a SIGTERM the photos that were taken have this long to be finished."
    )

    max_upload_bytes: int = Field(default=20_000_000, ge=1, description="A larger upload is answered 413.")
    max_image_pixels: int = Field(
        default=25_000_000, ge=1, description="A photo of more pixels (width x height) is answered 413."
    )
    max_reply_bytes: int = Field(
        default=128_000_000, ge=1, description="A reply that would be larger is answered 422 before it is made."
    )
    upload_store_bytes: int = Field(
        default=256_000_000,
        ge=0,
        description="The memory for photos that are kept for GET requests; the photo that was unused for longest makes room.",
    )
    upload_ttl_seconds: float = Field(
        default=3600, gt=0, description="A photo that is kept is forgotten this long after its last use."
    )

    label_studio_url: str | None = Field(
        default=None,
        description="The address of the Label Studio whose tasks get predictions, such as http://localhost:8080.",
    )
    label_studio_token: SecretStr | None = Field(
        default=None, description="A legacy or a personal access token of that Label Studio."
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
        """Inference workers: as set, else one per `intra_op_threads` cores."""
        return self.workers or max(1, available_cores() // self.intra_op_threads)


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
