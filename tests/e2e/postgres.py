"""Run a private PostgreSQL server, which is what stands behind Airflow in production.

It refuses texts and numbers that SQLite, the database of `airflow standalone`, accepts.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.e2e.processes import Program, as_user, free_ports, tail

DEBIAN = Path("/usr/lib/postgresql")
"""Debian has a folder for each major version here, and leaves the server's programs out of PATH."""
START_SECONDS = 60.0


class PostgresError(Exception):
    """PostgreSQL is not installed, or does not start."""


def find_programs(debian: Path = DEBIAN) -> Path:
    """Return the folder of PostgreSQL's server programs. A machine with only the client `psql` has none.

    :raises PostgresError: names the command that installs them.
    """
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(debian.glob("*/bin"), key=lambda folder: folder.parent.name.zfill(4), reverse=True)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    raise PostgresError("PostgreSQL's server (initdb, postgres) is not installed. Run: apt-get install postgresql")


def find_user() -> str | None:
    """Return the user to run as if this process is root, which PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in users)


@contextmanager
def postgres() -> Iterator[str]:
    """Run an empty database on a free loopback port and yield its SQLAlchemy URL.

    Afterwards no process and no file of it is left.

    :raises PostgresError: if PostgreSQL is not installed or does not start.
    """
    programs, user = find_programs(), find_user()
    folder = Path(tempfile.mkdtemp(prefix="comet-postgres-"))  # pytest's folders are closed to other users
    try:
        password = secrets.token_hex(16)
        password_file = folder / "password"
        password_file.write_text(password)
        if user:
            for path in (folder, password_file):
                shutil.chown(path, user)
        env = {"PATH": os.environ["PATH"], "PGDATA": str(folder / "data"), "LC_ALL": "C.UTF-8"}
        made = subprocess.run(
            [
                programs / "initdb",
                "--username=airflow",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-sync",
            ],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            **as_user(user),
        )
        if made.returncode:
            raise PostgresError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        (port,) = free_ports(1)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = [str(programs / "postgres"), *(f"--{name}={value}" for name, value in settings.items())]
        server = Program(command, log=folder / "log", env=env, marker="PGDATA", cwd=folder, user=user)
        url = f"postgresql://airflow:{password}@127.0.0.1:{port}/postgres"
        try:
            server.start()
            _wait_until_ready(server, url)
            yield url.replace("://", "+psycopg2://", 1)
        finally:
            # Its immediate shutdown, which waits for no client.
            server.stop(first=signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


def _wait_until_ready(server: Program, url: str) -> None:
    """Return when the server accepts a connection."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(url).close()
            return
        except psycopg2.OperationalError as error:
            if server.exit_code is not None or time.monotonic() > end:
                raise PostgresError(f"PostgreSQL does not start: {error}{tail(server.log)}") from None
        time.sleep(0.1)


def main() -> int:
    """Say whether PostgreSQL is installed, before tests run for many minutes without it."""
    try:
        find_programs()
    except PostgresError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
