"""Use the S3 API as programs do, by what `make env` says alone.

usage: storage.py BUCKET BYTES. Prints a presigned address of an object; fails where an object does
not come back as it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import boto3
from botocore.config import Config

# S3 takes names of metadata that are no usual names of headers
METADATA = {"run_id": "1", "user.origin": "2", "run-id": "3"}
NAMES = ("plain.txt", "with blank.txt", "100%.txt", "a+b=c&d;e,f.txt", "Größe.txt", "漢字/ß µ.bin")


def main(bucket: str, size: int) -> None:
    """Store, list and fetch."""
    s3 = boto3.client("s3", config=Config(signature_version="s3v4"))
    for name in NAMES:
        s3.put_object(Bucket=bucket, Key=f"storage/{name}", Body=name.encode())
        assert s3.get_object(Bucket=bucket, Key=f"storage/{name}")["Body"].read() == name.encode()
    s3.put_object(Bucket=bucket, Key="storage/told", Body=b"", Metadata=METADATA)
    assert s3.head_object(Bucket=bucket, Key="storage/told")["Metadata"] == METADATA
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="storage/")["Contents"]
    assert {row["Key"] for row in listed} >= {f"storage/{name}" for name in NAMES}
    with tempfile.TemporaryDirectory() as place:
        sent, fetched = Path(place, "sent"), Path(place, "fetched")
        sent.write_bytes(os.urandom(size))
        s3.upload_file(str(sent), bucket, "storage/large")  # in parts, several at once
        s3.download_file(bucket, "storage/large", str(fetched))
        assert fetched.read_bytes() == sent.read_bytes()
    of = {"Bucket": bucket, "Key": "storage/Größe.txt"}
    print(s3.generate_presigned_url("get_object", Params=of))
    # version 2, which boto3 takes where nothing is said
    print(boto3.client("s3").generate_presigned_url("get_object", Params=of))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
