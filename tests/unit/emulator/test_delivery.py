"""Files that are delivered as they are."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from typing import Any

import pytest
import requests
from PIL import Image

from airflow_provider_comet.emulator import Emulator, pictures
from tests.unit.emulator.conftest import Api


def test_delivery(api: Api) -> None:
    """Output URLs serve pictures in the requested format, always the same bytes, and the ledger has their hash."""
    urls = api.query(api.create(num_outputs=2, output_format="jpg", aspect_ratio="16:9", seed=7))["output"]
    files = [api.fetch(url) for url in (*urls, urls[0])]
    assert [file.headers["content-type"] for file in files] == ["image/jpeg"] * 3
    assert files[0].content == files[2].content != files[1].content
    with Image.open(io.BytesIO(files[0].content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (768, 432))
    served = api.emulator.ledger()["served"]
    assert [entry["sha256"] for entry in served] == [hashlib.sha256(file.content).hexdigest() for file in files]
    assert [entry["bytes"] for entry in served] == [len(file.content) for file in files]
    assert urls[0].endswith(served[0]["path"])


def test_delivery_refuses_the_key(api: Api) -> None:
    """A request that sends the key to the delivery host is refused."""
    url = api.query(api.create())["output"][0]
    assert api.fetch(url, **api.key).status_code == 400
    assert api.emulator.ledger()["served"] == []


def test_delivery_of_unknown_files(api: Api) -> None:
    """Unknown ids, numbers, formats and methods are answered 404."""
    url = api.query(api.create())["output"][0]
    root = url.rpartition("/")[0]
    for wrong in (f"{root}/1.webp", f"{root}/0.png", f"{root}/00.webp", f"{root}x/0.webp", f"{root}/0", f"{root}/a/b"):
        assert api.fetch(wrong).status_code == 404, wrong
    assert api.session.post(url, timeout=5).status_code == 404


def test_delivery_url_has_the_host_of_the_request(api: Api) -> None:
    """Output URLs name the host the client used, so that they also work from inside a container."""
    id = api.create()
    response = api.send("GET", f"/replicate/v1/predictions/{id}", headers={**api.key, "Host": "emulator:1234"})
    assert response.json()["output"] == [f"http://emulator:1234/delivery/{id}/0.webp"]


def test_link_that_has_expired() -> None:
    """A link works for the configured time; then it is answered 403, and a new query has one that works. A changed
    link never works."""
    with Emulator(duration=0, link_seconds=0) as emulator:
        api = Api(emulator)
        id = api.create()
        old = api.query(id)["output"][0]
        assert api.fetch(old).status_code == 403
        emulator._store.link_seconds = 60
        new = api.query(id)["output"][0]
        assert [api.fetch(url).status_code for url in (new, old)] == [200, 403]
        changed = [new.partition("?")[0] + end for end in ("", "?expires=", "?expires=x")]
        assert [api.fetch(url).status_code for url in changed] == [403] * 3
        assert len(emulator.ledger()["served"]) == 1
        api.session.close()


def test_missing_pillow(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow everything but the pictures works, and their 500 says what to install."""
    url = api.query(api.create())["output"][0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    response = api.fetch(url)
    assert response.status_code == 500
    assert "airflow-provider-comet[emulator]" in response.text


def test_concurrent_downloads_draw_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is drawn once although several clients download it at the same time."""
    drawn, original = [], pictures.draw

    def draw_slowly(*args: Any) -> bytes:
        drawn.append(args)
        time.sleep(0.1)
        return original(*args)

    monkeypatch.setattr(pictures, "draw", draw_slowly)
    url = api.query(api.create())["output"][0]
    sizes: list[int] = []
    threads = [
        threading.Thread(target=lambda: sizes.append(len(requests.get(url, timeout=5).content))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 1
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
