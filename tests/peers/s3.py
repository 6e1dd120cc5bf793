"""A store that speaks the protocol of Amazon S3, on loopback: moto's server."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.integration.peers import free_port, wait_until

BUCKET = "bone-age"
_KEYS = "[default]\naws_access_key_id = node\naws_secret_access_key = of-this-test\n"


class Store:
    """A running store with an empty bucket."""

    def __init__(self, folder: Path, port: int) -> None:
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self.credentials_file = folder / "credentials"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="sa-east-1",
            aws_access_key_id="node",
            aws_secret_access_key="of-this-test",
            config=Config(s3={"addressing_style": "path"}),
        )

    def configuration(self, *, images: str = "[]") -> str:
        """``[archive]`` of a node that uses it."""
        return (
            f'[archive]\nbucket = "{BUCKET}"\nendpoint_url = "{self.endpoint_url}"\n'
            f'credentials_file = "{self.credentials_file}"\nimages = {images}\n'
        )

    def names(self) -> list[str]:
        """Names of all objects."""
        listed = self.client.list_objects_v2(Bucket=BUCKET)
        return sorted(item["Key"] for item in listed.get("Contents", []))

    def read(self, key: str) -> bytes:
        """An object's bytes."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def write(self, key: str, content: bytes, **more: Any) -> None:
        """Put other bytes in an object's place."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content, **more)


@contextmanager
def running_store(folder: Path, port: int | None = None) -> Iterator[Store]:
    """A store for the time of a test; it forgets everything when it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder, port := port or free_port())
    store.credentials_file.write_text(_KEYS)
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(store.endpoint_url), seconds=60)
        store.client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "sa-east-1"}
        )
        yield store
    finally:
        store.client.close()
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=2):
        return True
    return False
