"""An S3 that runs here: moto's server in a process of its own, and the Airflow connection that leads to it."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.client import BaseClient

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
KEY_ID, SECRET = "test-key-id", "test-secret"  # moto asks for some, and checks none


@dataclass
class S3:
    """A running server with one bucket, looked at past s3fs and its caches.

    :param url: where it answers, on loopback.
    :param bucket: the name of the bucket.
    """

    url: str
    bucket: str
    _client: BaseClient = field(repr=False)

    def connection_json(self) -> str:
        """What to put in an AIRFLOW_CONN_... variable; `s3://CONNECTION@BUCKET/...` leads here then."""
        extra = {
            "endpoint_url": self.url,
            "region_name": REGION,
            # Buckets are no host names on loopback.
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
        return json.dumps({"conn_type": "aws", "login": KEY_ID, "password": SECRET, "extra": extra})

    def objects(self) -> dict[str, int]:
        """What can be seen in the bucket: keys and their sizes in bytes."""
        pages = self._pages("list_objects_v2", "Contents")
        return {str(found["Key"]): int(found["Size"]) for found in pages}

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return bytes(self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def unfinished_uploads(self) -> dict[str, str]:
        """Multipart uploads that were begun and neither completed nor aborted: upload ids and their keys."""
        pages = self._pages("list_multipart_uploads", "Uploads")
        return {str(found["UploadId"]): str(found["Key"]) for found in pages}

    def clear(self) -> None:
        """As freshly started: no object, no unfinished upload."""
        for upload, key in self.unfinished_uploads().items():
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        for key in self.objects():
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def _pages(self, operation: str, name: str) -> Iterator[dict[str, Any]]:
        for page in self._client.get_paginator(operation).paginate(Bucket=self.bucket):
            yield from page.get(name, [])


@contextlib.contextmanager
def s3_server(bucket: str = "pictures") -> Iterator[S3]:
    """Run a server on a free port for as long as the block lasts, with an empty bucket.

    A process, so that neither its memory nor its threads are taken for those of the code under test.
    """
    import boto3
    from botocore.config import Config

    command = [sys.executable, "-m", "tests.support.s3"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the S3 server ended before it answered: its reason is on stderr"
            client = boto3.client(
                "s3",
                endpoint_url=url,
                region_name=REGION,
                aws_access_key_id=KEY_ID,
                aws_secret_access_key=SECRET,
                config=Config(s3={"addressing_style": "path"}, proxies={}),
            )
            try:
                client.create_bucket(Bucket=bucket)
                yield S3(url, bucket, client)
            finally:
                client.close()
        finally:
            process.kill()


def serve() -> None:
    """Serve until the starter closes our stdin, which it also does by dying: no server outlives a killed test run."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request, in the middle of pytest's
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    serve()
