"""A real nginx before services of the test's own, from deploy/nginx/tag2mask.conf, with a certificate of its own."""

import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.app.redis_server import free_port
from tests.app.server import ROOT

CONFIGURATION = ROOT / "deploy" / "nginx" / "tag2mask.conf"
START_SECONDS = 20
PROGRAMS = f"{os.environ['PATH']}:/usr/sbin"  # Debian puts nginx where only root looks.
MAIN = """{user}pid {folder}/pid; error_log {folder}/errors warn; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/tag2mask.conf;
}}
"""


@contextmanager
def run_nginx(
    folder: Path, replicas: list[int], changes: Mapping[str, str] | None = None
) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Run one before the services at these ports: its address, and a context that trusts its certificate.

    changes: what the configuration says -> what it is to say in its place. The test is skipped where nginx or openssl is not installed.
    """
    if missing := [program for program in ("nginx", "openssl") if shutil.which(program, path=PROGRAMS) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*request, *names, "-keyout", str(key), "-out", str(certificate)], check=True, stderr=subprocess.DEVNULL
    )
    port, plain = free_port(), free_port()
    text = CONFIGURATION.read_text(encoding="utf-8").replace("photos.example.org", "localhost")
    text = text.replace("/etc/ssl/tag2mask", str(folder)).replace("listen 80;", f"listen 127.0.0.1:{plain};")
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    addresses = iter(f"server 127.0.0.1:{replica} " for replica in replicas)
    text = re.sub(r"server 10\.0\.0\.\d+:8000 ", lambda _: next(addresses), text)
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "tag2mask.conf").write_text(text, encoding="utf-8")
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user), encoding="utf-8")
    command = [
        shutil.which("nginx", path=PROGRAMS) or "nginx",
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
        "-g",
        "daemon off;",
    ]
    trusted = ssl.create_default_context(cafile=str(certificate))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    httpx2.get(f"http://127.0.0.1:{plain}/")
                    break
                except httpx2.ConnectError:
                    assert process.poll() is None, (folder / "errors").read_text()
                    assert time.monotonic() < end, "nginx did not start"
                    time.sleep(0.05)
            yield f"https://localhost:{port}", trusted
        finally:
            process.terminate()
