"""The archive's objects in a store that speaks the protocol of Amazon S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.domain.errors import Fault, Permanent, Transient

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 30, 2
_FIRST_SERVER_ERROR = 500


class S3ObjectStore:
    """The port ``ObjectStore`` on a bucket. Its library is loaded when it is first used.

    ``endpoint_url``: None for Amazon's own; ``credentials_file``: a shared credentials file with a
    ``[default]`` profile, None for the library's own search; ``ca``: the authority of the
    endpoint's certificate, None for the system's.
    """

    def __init__(
        self,
        *,
        bucket: str,
        endpoint_url: str | None,
        region: str,
        prefix: str,
        credentials_file: Path | None,
        ca: Path | None,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint_url = endpoint_url
        self._region = region
        self._credentials_file = credentials_file
        self._ca = ca
        self._client: Any = None

    @property
    def uri(self) -> str:
        """Where the objects lie."""
        return f"s3://{self._bucket}/{self._prefix}"

    def close(self) -> None:
        """Close its connections; the next call opens them again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def put(self, key: str, content: bytes) -> None:
        """The store computes the checksum again and refuses what was damaged on the way."""
        with self._errors(key):
            self._connected().put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=content,
                ContentType="application/dicom",
                ChecksumSHA256=_checksum(content),
                Metadata={"sha256": hashlib.sha256(content).hexdigest()},
            )

    def get(self, key: str) -> bytes:
        """An object whose checksum is that of :meth:`put`."""
        with self._errors(key):
            answer = self._connected().get_object(Bucket=self._bucket, Key=self._prefix + key)
            content: bytes = answer["Body"].read()
        if answer["Metadata"].get("sha256") != hashlib.sha256(content).hexdigest():
            raise Permanent(
                Fault.ARCHIVE_DAMAGED,
                f"{self.uri}{key} is not what was archived: look for an older version of it",
            )
        return content

    def _connected(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            keys = _credentials(self._credentials_file) if self._credentials_file else {}
            self._client = boto3.session.Session(region_name=self._region, **keys).client(
                "s3",
                endpoint_url=self._endpoint_url,
                verify=str(self._ca) if self._ca else None,
                config=Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"total_max_attempts": _ATTEMPTS},
                    s3={"addressing_style": "path"} if self._endpoint_url else None,
                ),
            )
        return self._client

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        place = self.uri + key
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError):
            raise Permanent(
                Fault.ARCHIVE_REFUSED,
                f"{place}: no access key: name a file with one in archive.credentials_file",
            ) from None
        except ClientError as error:
            raise _refusal(place, error) from None
        except (BotoCoreError, OSError) as error:
            raise Transient(
                Fault.ARCHIVE_UNAVAILABLE,
                f"{place}: the archive does not answer ({type(error).__name__}): check "
                "archive.endpoint_url, the network and the store",
            ) from None


def _refusal(place: str, error: ClientError) -> Permanent | Transient:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = error.response.get("Error", {}).get("Code", "")
    if code == "NoSuchKey":
        return Permanent(Fault.ARCHIVE_DAMAGED, f"{place} is not in the archive any more")
    if status >= _FIRST_SERVER_ERROR or code in {"SlowDown", "RequestTimeout", "BadDigest"}:
        return Transient(Fault.ARCHIVE_UNAVAILABLE, f"{place}: the archive answered {code}")
    return Permanent(
        Fault.ARCHIVE_REFUSED,
        f"{place}: the archive answered {code} ({status}): check bucket, access key and its rights",
    )


def _checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _credentials(file: Path) -> dict[str, str]:
    """The ``[default]`` profile of a shared credentials file."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        profile = parser["default"]
        return {
            name: profile[name]
            for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
            if name in profile
        }
    except (OSError, KeyError, configparser.Error, UnicodeDecodeError):
        raise Permanent(
            Fault.ARCHIVE_REFUSED,
            f"{file} is no credentials file: [default] with aws_access_key_id and "
            "aws_secret_access_key",
        ) from None
