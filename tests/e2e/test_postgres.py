"""The private PostgreSQL server that other tests put behind Airflow."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import psycopg2
import pytest

from tests.e2e.postgres import PostgresError, find_programs, postgres


def servers() -> set[int]:
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "postgres"}


def test_nothing_is_left() -> None:
    """The server speaks UTF-8 and stops with its folder removed, also when the block raises while it is in use."""
    before = servers()
    shown: list[str] = []

    def use(url: str) -> None:
        with psycopg2.connect(url.replace("+psycopg2", "")).cursor() as cursor:
            for name in ("server_encoding", "data_directory"):
                cursor.execute(f"show {name}")
                shown.extend(cursor.fetchone())
        assert servers() > before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), postgres() as url:
        use(url)
    encoding, folder = shown
    assert encoding == "UTF8"
    assert not Path(folder).parent.exists()
    assert servers() <= before


def test_only_the_client_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where `psql` is installed without the server, the error names the command that installs it."""
    client = tmp_path / "15" / "bin"
    client.mkdir(parents=True)
    (client / "psql").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(client))
    with pytest.raises(PostgresError, match="Run: apt-get install postgresql"):
        find_programs(debian=tmp_path)


def test_newest_version_outside_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's programs are found although they are not in PATH; 15 is newer than 9."""
    monkeypatch.setenv("PATH", os.devnull)
    for version in ("9", "15"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        for name in ("initdb", "postgres"):
            (folder / name).touch(mode=0o755)
    assert find_programs(debian=tmp_path) == tmp_path / "15" / "bin"
