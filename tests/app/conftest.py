"""A service that serves the colour models, in this process, and the page in a browser."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI
from selenium import webdriver
from starlette.testclient import TestClient

from app.main import create_app
from app.runtime.settings import Settings
from tests.app.browser import Page, open_chromium
from tests.app.colour_models import BLACK, RED, halves, to_file, write_cam_model, write_segmentation_model
from tests.app.photo_host import FakeHost, run_host, settings_for
from tests.app.server import MAX_UPLOAD_BYTES, ROOT, Server, start_server


def wait_until_ready(client: TestClient, seconds: float = 120) -> None:
    """Return when `/readyz` answers 200."""
    end = time.monotonic() + seconds
    while (reply := client.get("/readyz")).status_code != 200:
        assert "could not be loaded" not in reply.text, reply.text
        assert time.monotonic() < end, "the models did not load"
        time.sleep(0.02)


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], TestClient]]:
    """Start a service of one's own; it is ready when the call returns and stops with the test."""
    with ExitStack() as stack:

        def start(settings: Settings) -> TestClient:
            client = stack.enter_context(TestClient(create_app(settings)))
            wait_until_ready(client)
            return client

        yield start


@pytest.fixture(scope="session")
def models_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cam models, one of them in two versions, and a segmenter."""
    directory = tmp_path_factory.mktemp("models")
    write_cam_model(directory)
    few = {"classes": ("cat", "dog", "person"), "method": "grad-cam", "flip": True, "scales": (1.0, 2.0)}
    write_cam_model(directory, "cam_colours", 2, **few)
    write_cam_model(directory, "cam_colours", 10, **few)
    write_segmentation_model(directory)
    return directory


@pytest.fixture(scope="session")
def settings(models_directory: Path) -> Settings:
    return Settings(models=models_directory, device="cpu", workers=2, max_upload_bytes=2_000_000)


@pytest.fixture(scope="session")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="session")
def running(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture
def client(running: TestClient) -> TestClient:
    """A client without cookies of a service that is ready."""
    running.cookies.clear()
    return running


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A PNG of the models' own size: red (dog) on the left, black (nothing) on the right."""
    return to_file(halves(RED, BLACK))


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A Label Studio that holds photos."""
    with run_host() as host:
        yield host


@pytest.fixture
def backend(serve: Callable[[Settings], TestClient], host: FakeHost, models_directory: Path) -> TestClient:
    """A service that knows that Label Studio."""
    return serve(settings_for(host, models_directory))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="session")
def server(models_directory: Path) -> Iterator[Server]:
    """A service of the colour models: one worker, one place to wait, and little patience with large uploads."""
    settings = {"queue_size": 1, "max_upload_bytes": MAX_UPLOAD_BYTES}
    with start_server(models_directory, **settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="session")
def served() -> Iterator[Server]:
    """The models of the repository. The log stays short: nobody reads the pipe, which would fill."""
    with start_server(ROOT / "models", log_level="warning") as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def browser(driver: webdriver.Chrome) -> Iterator[Page]:
    page = Page(driver)
    yield page
    assert not page.complaints()


@pytest.fixture
def page(browser: Page, served: Server) -> Page:
    return browser.open(served)


@pytest.fixture
def cat(page: Page) -> Page:
    """The page with a photo of a cat on it."""
    page.upload(ROOT / "tests/photos/cat.jpg")
    return page
