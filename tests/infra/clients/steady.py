"""Record and store without a pause, until told to end, and find all of it again.

usage: steady.py DIRECTORY BUCKET. Writes how many rounds are done to DIRECTORY/rounds and ends once
there is DIRECTORY/end. Fails where a request failed, or where something sent is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3
from mlflow import MlflowClient


def main(directory: Path, bucket: str) -> None:
    """Go round."""
    tracking, s3 = MlflowClient(), boto3.client("s3")
    run = tracking.create_run("0").info.run_id
    done = 0
    while not (directory / "end").exists():
        tracking.log_metric(run, "round", done, step=done)
        s3.put_object(Bucket=bucket, Key=f"steady/{run}/{done}", Body=str(done).encode())
        done += 1
        (directory / "rounds").write_text(str(done))
    steps = [entry.step for entry in tracking.get_metric_history(run, "round")]
    assert sorted(steps) == list(range(done)), "metrics are missing or there twice"
    for number in range(done):
        body = s3.get_object(Bucket=bucket, Key=f"steady/{run}/{number}")["Body"]
        assert body.read() == str(number).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
