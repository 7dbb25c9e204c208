"""BentoML: a service whose one method is the loop, with a worker process for each core."""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.bare_loop import CORES, bare_loop

MODEL, SIZE = "BENCHMARK_MODEL", "BENCHMARK_SIZE"  # The workers are told by these variables what they serve.


@bentoml.service(workers=CORES, traffic={"timeout": 300})
class Segmenter:
    """It answers with the mask of the form's file."""

    def __init__(self) -> None:
        self.answer = bare_loop(Path(os.environ[MODEL]), int(os.environ[SIZE]))

    @bentoml.api(route="/segment")
    def segment(self, file: Path) -> Annotated[bytes, ContentType("image/png")]:
        return self.answer(file.read_bytes())


if __name__ == "__main__":
    path, size, listening = sys.argv[1:]
    told = {**os.environ, MODEL: path, SIZE: size, "BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.peers.bento:Segmenter"]
    os.execve(sys.executable, [*command, "--quiet", "--host", "127.0.0.1", "--port", listening], told)
