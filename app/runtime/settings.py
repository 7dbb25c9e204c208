"""The service's configuration: one frozen object, read from the environment (prefix `TAG2MASK_`) once."""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseSettings):
    """Every setting has an environment variable of its name, `TAG2MASK_DEVICE=cpu` for `device`.

    `cam_model` and `segmentation_model` ("NAME" or "NAME/VERSION") are the models used where a request names none.
    `models` is looked at again every `models_poll_seconds` (0: never) and at a SIGHUP.
    `workers` photos are worked on at a time (default: cores / `intra_op_threads`); `queue_size` more may wait.
    `label_studio_url` and `label_studio_token` are the Label Studio whose tasks get predictions (`app.protocols.label_studio.routes`).
    """

    model_config = SettingsConfigDict(env_prefix="TAG2MASK_", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    models: Path = Path("models")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cam_model: str | None = None
    segmentation_model: str | None = None
    models_poll_seconds: float = Field(default=5, ge=0)

    intra_op_threads: int = Field(default=1, ge=1)
    workers: int | None = Field(default=None, ge=1)
    queue_size: int = Field(default=32, ge=0)
    drain_seconds: int = Field(default=30, ge=0)

    max_upload_bytes: int = Field(default=20_000_000, ge=1)
    max_image_pixels: int = Field(default=25_000_000, ge=1)
    max_reply_bytes: int = Field(default=128_000_000, ge=1)
    upload_store_bytes: int = Field(default=256_000_000, ge=0)
    upload_ttl_seconds: float = Field(default=3600, gt=0)

    label_studio_url: str | None = None
    label_studio_token: SecretStr | None = None

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


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, and a container's CPU quota (cgroup v2) where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here: no quota
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
