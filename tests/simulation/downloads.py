"""The delivery host of a simulated world: it serves the files of predictions until their links expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.outputs.connections import Connections
from airflow_provider_comet.outputs.download import Downloader

if TYPE_CHECKING:
    from airflow_provider_comet.api.config import Config
    from tests.simulation.comet import Prediction
    from tests.simulation.world import World

DELIVERIES = ("unreachable", "busy", "cut_off", "cut_off_late", "altered", "gone", "page")
"""What may become of a request for a file."""


def make_downloader(world: World) -> type[Downloader]:
    """Return the product's downloader with a session that reaches this world."""

    class WorldDownloader(Downloader):
        def __init__(self, config: Config) -> None:
            self._config = config
            self.clock = lambda: world.kernel.now - world.begins + 1_000.0
            self._connections = Connections()
            self.sleep = self._pause
            self._process = _process(world)
            world.sessions.add((self._process, id(self)))

        def __exit__(self, *_: object) -> None:
            world.sessions.discard((self._process, id(self)))

        def _pause(self, seconds: float) -> None:
            if not self._connections.is_aborted:
                world.kernel.sleep(seconds, can_halt=True)
            self.raise_if_aborted()

        def get(self, url: str, headers: dict[str, str]) -> Any:
            world.left("a request for a file", f"{url} {headers}")
            self.raise_if_aborted()
            prediction = world.api.predictions.get(urlsplit(url).path.split("/")[1])
            is_expired = world.kernel.now >= float(url.rpartition("=")[2])
            number = world.count("download")
            name = world.story.answer_of_download(number)
            world.effect("download", f"{number} {name or ''}", 0.2)
            if name is not None and prediction is not None:
                world.met_by(self._process, f"download {name}")
                world.downloads.append((world.kernel.now, f"{name} {prediction.id}"))
            if is_expired:
                world.met_by(self._process, "link has expired")
                name = "gone"
            if name == "unreachable":
                raise DeliveryError("delivery.example.com: connection refused")
            return _Response(world, prediction, name, headers)

    return WorldDownloader


class _Response:
    """What ``requests`` returns for a file, as far as a download reads it."""

    def __init__(self, world: World, prediction: Prediction | None, fault: str | None, headers: dict[str, str]) -> None:
        self.raw = self
        self.headers = {"Content-Type": "image/png", "ETag": '"1"'}
        self.status_code = 200
        self._world = world
        self._content = b""
        self._is_cut_off = fault in ("cut_off", "cut_off_late")
        if fault == "busy":
            self.status_code = 503
        elif fault == "gone" or prediction is None or not world.api.delivers(prediction):
            self.status_code = 403
        elif fault == "page":
            self.headers["Content-Type"] = "text/html"
            self._content = b"<!doctype html><title>Sorry</title>"
        else:
            self._content = prediction.content()
            if fault == "altered":
                self.headers["ETag"] = '"2"'
        self._size = len(self._content)
        start = headers.get("Range", "")
        if start and self.status_code == 200:
            first = int(start.removeprefix("bytes=").rstrip("-"))
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {first}-{self._size - 1}/{self._size}"
            self._content = self._content[first:]
        self.headers["Content-Length"] = str(len(self._content))
        if self._is_cut_off:
            self._content = self._content[: 4 if fault == "cut_off" else -1]

    def read1(self, size: int) -> bytes:
        self._world.effect("download", "bytes", 0.1)
        if not self._content and self._is_cut_off:
            raise OSError("connection reset")
        content, self._content = self._content[:40], self._content[40:]
        return content

    def close(self) -> None:
        """Nothing is open."""


def _process(world: World) -> Any:
    assert world.kernel.current is not None
    return world.kernel.current.process
