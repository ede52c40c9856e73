"""An S3-compatible server on this machine (moto), for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.sockets import unused_port

BUCKET = "bucket"
START_SECONDS = 30.0


@dataclass(frozen=True)
class S3:
    """A running server with one empty bucket.

    :param client: a boto3 client that reads the bucket.
    :param connection: an Airflow connection of type ``aws`` that leads to it, as JSON.
    """

    url: str
    client: Any
    connection: str

    def objects(self) -> dict[str, int]:
        """Return the size of each visible object by its key."""
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    def unfinished(self) -> list[str]:
        """Return the keys of uploads that were neither completed nor aborted: invisible, and billed by a real S3."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def content(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def empty(self) -> None:
        """Remove all objects and unfinished uploads."""
        for key in self.objects():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            self.client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """Run it in a process of its own."""
    import boto3

    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        key, region = "some-key-id", "us-east-1"
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key="some-secret", region_name=region
        )
        client.create_bucket(Bucket=BUCKET)
        extra = {"endpoint_url": url, "region_name": region}
        connection = {"conn_type": "aws", "login": key, "password": "some-secret", "extra": extra}
        yield S3(url, client, json.dumps(connection))
        client.close()
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "moto's server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"moto's server does not listen after {START_SECONDS:.0f} s")
