"""Facts of a running platform, read where they are and printed as one line of JSON.

This file is sent as it is to a host, or into one of its containers, and run there by that place's
own Python: to import it takes no more than the standard library of 3.9. It states facts; what they
ought to be is the tests' matter.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LABEL = "mlops.platform"
SOCKET = "/var/run/docker.sock"
LISTEN = "0A"
# a shorter word is a name, found anywhere by chance; the platform takes no shorter secret
SECRET_LEAST = 12
TIMEOUT = 10.0
CHUNK = 1 << 20
WORKSPACE = Path("/workspace")
PROJECT = WORKSPACE / "project"
PULL_PREFIX = "verify-"
STALE_SECONDS = 3600.0
RUNS_LOOKED_AT = 50

Json = dict[str, Any]


class CannotRunError(Exception):
    """Nothing can be read here; the sentence says why."""


def gather(readers: Mapping[str, Callable[[], Any]]) -> Json:
    """Run each reader; give its value or the sentence it failed with, and its seconds."""
    gathered: Json = {}
    for name, read in readers.items():
        began = time.monotonic()
        try:
            answer: Json = {"value": read()}
        except CannotRunError:
            raise
        except Exception as error:  # one fact that cannot be read hides no other
            text = " ".join(str(error).split()) or "no message"
            answer = {"error": f"{type(error).__name__}: {text[:400]}"}
        gathered[name] = {**answer, "seconds": round(time.monotonic() - began, 2)}
    return gathered


# --- a host ---------------------------------------------------------------------------------------


class EngineConnection(http.client.HTTPConnection):
    """HTTP to the Docker engine's Unix socket."""

    def connect(self) -> None:
        """Connect to the socket instead of to a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(SOCKET)


def engine(url: str) -> bytes:
    """Return the engine's answer to GET `url`.

    Raises:
        CannotRunError: no engine answers, or this user may not ask it.
    """
    connection = EngineConnection("localhost")
    try:
        connection.request("GET", url)
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise CannotRunError(
            f"the Docker engine at {SOCKET} does not answer ({error}): start it with `make up`,"
            " or let this user ask it"
        ) from error
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise OSError(f"GET {url}: {reply.status} {body[:200].decode(errors='replace')}")
    return body


def processes() -> Iterator[Path]:
    """Give the directory of every process in /proc."""
    yield from Path("/proc").glob("[0-9]*")


def pid_namespace(process: Path) -> str:
    """Return the PID namespace of a process, or an empty string where it is gone or hidden."""
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:
        return ""


def command_line(process: Path) -> list[str]:
    """Return the words of a process's command line; none where it is gone."""
    with contextlib.suppress(OSError):
        return [
            word.decode(errors="replace")
            for word in (process / "cmdline").read_bytes().split(b"\0")
        ]
    return []


def effective_uid(process: Path) -> int:
    """Return the effective uid of a process (proc_pid_status(5)), -1 where it is gone."""
    with contextlib.suppress(OSError):
        for line in (process / "status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    return -1


def socket_address(field: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp or tcp6: hexadecimal, each 32-bit word little-endian."""
    packed, _, port = field.partition(":")
    words = [bytes.fromhex(packed[at : at + 8])[::-1] for at in range(0, len(packed), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def listeners(process: str) -> list[tuple[str, int]]:
    """List address and port of the TCP sockets that listen in a process's network namespace."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN:
                    found.add(socket_address(fields[1]))
    return sorted(found)


def published(ports: Mapping[str, Any] | None) -> list[Json]:
    """List what an engine says it publishes of a container."""
    return [
        {
            "inside": int(inside.partition("/")[0]),
            "address": entry["HostIp"],
            "port": int(entry["HostPort"]),
        }
        for inside, entries in sorted((ports or {}).items())
        for entry in entries or []
    ]


def proxies(addresses: set[str]) -> list[Json]:
    """List what Docker's own proxies listen on for containers with these addresses."""
    found = []
    for process in processes():
        words = command_line(process)
        if words and words[0].endswith("docker-proxy"):
            given = dict(zip(words[1::2], words[2::2]))  # noqa: B905 - strict= is not in 3.9
            if given.get("-container-ip") in addresses:
                found.append(
                    {
                        "inside": int(given["-container-port"]),
                        "address": given["-host-ip"],
                        "port": int(given["-host-port"]),
                    }
                )
    return sorted(found, key=lambda row: (row["port"], row["address"]))


def container(raw: Mapping[str, Any]) -> Json:
    """Tell of one container what a person could feel, from its inspection and from /proc."""
    state, config, host = raw["State"], raw["Config"], raw["HostConfig"]
    networks = (raw["NetworkSettings"].get("Networks") or {}).values()
    addresses = {network["IPAddress"] for network in networks if network.get("IPAddress")}
    inside: list[tuple[str, int]] = []
    uids: list[int] = []
    if state["Pid"]:
        space = pid_namespace(Path(f"/proc/{state['Pid']}"))
        uids = sorted(
            {effective_uid(one) for one in processes() if space and pid_namespace(one) == space}
            - {-1}
        )
        inside = listeners(str(state["Pid"]))
    return {
        "name": raw["Name"].lstrip("/"),
        "service": config["Labels"].get("mlops.service", ""),
        "state": state["Status"],
        "health": (state.get("Health") or {}).get("Status", "none"),
        "said": " ".join(
            ((state.get("Health") or {}).get("Log") or [{}])[-1].get("Output", "").split()
        )[-200:],
        "exit_code": state["ExitCode"],
        "out_of_memory": state["OOMKilled"],
        "user": config["User"],
        "uids": uids,
        "memory": host["Memory"],
        "swap": host["MemorySwap"],
        "pids": host["PidsLimit"] or 0,
        "log_limit": (host["LogConfig"].get("Config") or {}).get("max-size", ""),
        "restart": host["RestartPolicy"]["Name"],
        "read_only": host["ReadonlyRootfs"],
        "privileged": host["Privileged"],
        "cap_add": host["CapAdd"] or [],
        "cap_drop": host["CapDrop"] or [],
        "security": host["SecurityOpt"] or [],
        "namespaces": [
            mode
            for mode in (host["NetworkMode"], host["PidMode"], host["IpcMode"])
            if mode == "host"
        ],
        "mounts": [mount.get("Source", "") for mount in raw["Mounts"]],
        "ports": published(raw["NetworkSettings"]["Ports"]),
        "proxies": proxies(addresses),
        "listeners": inside,
    }


def secret_values(text: str) -> list[str]:
    """Take from a secret file what must stay secret.

    An address gives its password only, an INI file the values of keys that say they are secret,
    anything else is secret as a whole.
    """
    text = text.strip()
    if "\n" in text:
        pairs = (line.partition("=") for line in text.splitlines())
        found = [
            value.strip()
            for key, _, value in pairs
            if any(word in key.lower() for word in ("secret", "password", "token"))
        ]
    elif "://" in text:
        found = [urllib.parse.urlsplit(text).password or ""]
    else:
        found = [text]
    return [value for value in found if len(value) >= SECRET_LEAST]


def hiding_places(
    directory: Path, inspected: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """Give each place that no secret may be in: its name and its content."""
    for raw in inspected:
        name = raw["Name"].lstrip("/")
        yield f"docker inspect {name}", json.dumps(raw, ensure_ascii=False).encode()
        yield f"docker inspect of the image of {name}", engine(f"/images/{raw['Image']}/json")
        yield f"docker logs {name}", engine(f"/containers/{raw['Id']}/logs?stdout=1&stderr=1")
    for process in processes():
        words = command_line(process)
        yield (
            f"the command line of process {process.name} ({words[0] if words else ''})",
            "\0".join(words).encode(),
        )
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "secrets" not in path.relative_to(directory).parts:
            yield str(path), path.read_bytes()


def secrets(directory: Path, inspected: Sequence[Mapping[str, Any]]) -> Json:
    """Tell who owns the secret files below `directory`, and where else their content is found."""
    files, wanted = [], {}
    for path in sorted(directory.glob("services/*/secrets/*")):
        about = path.stat()
        name = f"{path.parts[-3]}/{path.name}"
        files.append(
            {"name": name, "mode": f"{stat.S_IMODE(about.st_mode):04o}", "uid": about.st_uid}
        )
        for value in secret_values(path.read_text()):
            wanted[value] = name
    found = [
        f"{name} in {place}"
        for place, content in hiding_places(directory, inspected)
        for value, name in wanted.items()
        if value.encode() in content or json.dumps(value)[1:-1].encode() in content
    ]
    return {"files": files, "looked_for": len(wanted), "found": sorted(set(found))}


def inspect_all(platform: str) -> list[Json]:
    """Inspect every container that carries the platform's label."""
    wanted = urllib.parse.quote(json.dumps({"label": [f"{LABEL}={platform}"]}))
    rows = json.loads(engine(f"/containers/json?all=1&filters={wanted}"))
    return [json.loads(engine(f"/containers/{row['Id']}/json")) for row in rows]


def of_host(given: Mapping[str, Any]) -> Json:
    """Read a host: `platform` and `directory` say whose containers and secrets."""
    inspected = inspect_all(given["platform"])
    return gather(
        {
            "containers": lambda: [container(raw) for raw in inspected],
            "secrets": lambda: secrets(Path(given["directory"]), inspected),
        }
    )


def answer_to(request: Mapping[str, Any]) -> Json:
    """Send one HTTP request, without credentials; its status, or why there is none."""
    asked = urllib.request.Request(  # noqa: S310 - the platform's own addresses
        request["url"], method=request.get("method", "GET"), headers=request.get("headers", {})
    )
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT) as reply:  # noqa: S310
            return {**request, "status": reply.status}
    except urllib.error.HTTPError as error:
        return {**request, "status": error.code}
    except OSError as error:
        return {**request, "status": 0, "error": str(error)}


def of_strangers(given: Mapping[str, Any]) -> Json:
    """Read what `requests` are answered from the host."""
    return gather({"answers": lambda: [answer_to(request) for request in given["requests"]]})


# --- object storage -------------------------------------------------------------------------------


def of_minio(given: Mapping[str, Any]) -> Json:
    """Read, as root and in the server's own container, the state of `buckets`."""
    import urllib3  # noqa: PLC0415 - there only
    from minio import Minio  # noqa: PLC0415 - there only
    from minio.error import S3Error  # noqa: PLC0415

    keys = [Path(f"/run/secrets/root_{name}").read_text().strip() for name in ("user", "password")]
    client = Minio(
        endpoint="127.0.0.1:9000",
        access_key=keys[0],
        secret_key=keys[1],
        secure=False,
        http_client=urllib3.PoolManager(timeout=TIMEOUT, retries=False),
    )

    def read() -> dict[str, Json]:
        there = {bucket.name for bucket in client.list_buckets()}
        found: dict[str, Json] = {}
        for name in given["buckets"]:
            if name in there:
                try:
                    policy = client.get_bucket_policy(bucket_name=name)
                except S3Error as error:
                    if error.code != "NoSuchBucketPolicy":
                        raise
                    policy = ""
                found[name] = {
                    "versioning": client.get_bucket_versioning(bucket_name=name).status,
                    "policy": policy,
                }
        return found

    return gather({"buckets": read})


def s3() -> Any:  # noqa: ANN401 - boto3 has no types
    """Return an S3 client with the credentials and the endpoint of this container."""
    import boto3  # noqa: PLC0415 - there only
    from botocore.config import Config  # noqa: PLC0415

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    config = Config(
        connect_timeout=5,
        read_timeout=TIMEOUT,
        retries={"total_max_attempts": 2},
        s3={"addressing_style": "path"},
    )
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def outcome(call: Callable[[], Any]) -> str:
    """Return `allowed`, or the code that S3 refuses with."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - there only

    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "allowed"


def reach(buckets: Iterable[str]) -> Json:
    """Try what this container's S3 user may do in each bucket, changing nothing."""
    client = s3()
    signer = client._request_signer._credentials  # boto3 has no public name for it
    tried: Json = {}
    for name in buckets:
        tried[name] = {
            "list": outcome(lambda name=name: client.list_objects_v2(Bucket=name, MaxKeys=1)),  # type: ignore[misc]
            "read": outcome(lambda name=name: client.get_object(Bucket=name, Key="verify")),  # type: ignore[misc]
            # a checksum that no content has: who may write is told so, and yet writes nothing
            "write": outcome(
                lambda name=name: client.put_object(  # type: ignore[misc]
                    Bucket=name,
                    Key="verify",
                    Body=b"verify",
                    ContentMD5=base64.b64encode(hashlib.md5(b"other").digest()).decode(),  # noqa: S324
                )
            ),
            "policy": outcome(lambda name=name: client.get_bucket_policy(Bucket=name)),  # type: ignore[misc]
        }
    return {
        "user": signer.access_key,
        "buckets": tried,
        "admin": administers(client.meta.endpoint_url, signer),
    }


def administers(endpoint: str, credentials: Any) -> int:  # noqa: ANN401 - botocore has no types
    """Return the status that MinIO's admin API gives this user for its list of users."""
    from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - there only
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415

    asked = AWSRequest("GET", f"{endpoint}/minio/admin/v3/list-users")
    asked.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"").hexdigest()
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(asked)
    return int(answer_to({"url": asked.url, "headers": dict(asked.headers)})["status"])


def object_md5(client: Any, bucket: str, key: str) -> Json:  # noqa: ANN401 - boto3's own
    """Read an object and hash its bytes; size and md5."""
    digest, size = hashlib.md5(), 0  # noqa: S324 - DVC's own
    for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK):
        digest.update(block)
        size += len(block)
    return {"size": size, "md5": digest.hexdigest()}


def bucket_and_key(url: str, rest: str) -> tuple[str, str]:
    """Split s3://bucket/prefix and put `rest` below it."""
    bucket, _, prefix = url[len("s3://") :].partition("/")
    return bucket, f"{prefix.strip('/')}/{rest}".lstrip("/")


# --- the tracking server --------------------------------------------------------------------------


def artifact_destination() -> str:
    """Return where the running server in this container keeps artifacts."""
    flag = "--artifacts-destination="
    for process in processes():
        for word in command_line(process):
            if word.startswith(flag):
                return word[len(flag) :]
    raise ValueError(f"no process has {flag}...")


def stored_artifacts(paths: Iterable[str]) -> Json:
    """Read and hash the objects below each artifact path: path -> name -> size and md5."""
    client, destination = s3(), artifact_destination()
    found: Json = {}
    for path in paths:
        bucket, prefix = bucket_and_key(destination, f"{path}/")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
        found[path] = {key[len(prefix) :]: object_md5(client, bucket, key) for key in keys}
    return {"bucket": bucket_and_key(destination, "")[0], "paths": found}


def of_mlflow(given: Mapping[str, Any]) -> Json:
    """Read, in the server's container, what its S3 user reaches, and the stored `artifacts`."""
    return gather(
        {
            "reach": lambda: reach(given["buckets"]),
            "artifacts": lambda: stored_artifacts(given["artifacts"]),
        }
    )


# --- the runner -----------------------------------------------------------------------------------


def run(*words: str, at: Path, env: Mapping[str, str] | None = None, timeout: float = 180) -> str:
    """Run a command and return what it prints; raises OSError with its last lines."""
    done = subprocess.run(  # noqa: S603 - words written in this file
        words,
        cwd=at,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode:
        tail = " ".join((done.stdout + done.stderr).split())[-300:]
        raise OSError(f"{' '.join(words[:2])} ended with code {done.returncode}: {tail}")
    return done.stdout


def git(*words: str, at: Path = PROJECT) -> str:
    """Run git and return what it prints."""
    return run("git", "-c", "safe.directory=*", *words, at=at).strip()


def file_md5(path: Path) -> str:
    """Return the md5 of a file."""
    digest = hashlib.md5()  # noqa: S324 - DVC's own
    with path.open("rb") as source:
        while block := source.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def outputs(text: str) -> dict[str, str]:
    """Map every output in the text of a dvc.lock to its md5."""
    import yaml  # noqa: PLC0415 - there only

    stages = (yaml.safe_load(text) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def lock() -> dict[str, str]:
    """Return the outputs of the last run; raises where the pipeline has not run."""
    path = PROJECT / "dvc.lock"
    if not path.is_file():
        raise FileNotFoundError("there is no dvc.lock: the pipeline has not run on this platform")
    return outputs(path.read_text())


def settings() -> Json:
    """Return the project's config.yaml, empty where it has none."""
    import yaml  # noqa: PLC0415 - there only

    path = PROJECT / "config.yaml"
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def read_json(path: Path) -> Json:
    """Read a JSON object, empty where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def origin(commit: str) -> Json:
    """Tell which commit of the project's source a commit of the workspace is a run of."""
    subject = git("log", "-1", "--format=%s", commit)
    base = subject[len("Run of ") :] if subject.startswith("Run of ") else commit
    try:
        note = json.loads(git("log", "-1", "--format=%B", base))
        return {"source_commit": note["source_commit"], "dirty": note["dirty"]}
    except (ValueError, KeyError, TypeError):
        return {"source_commit": base, "dirty": False}


def ran_at(out: Mapping[str, str]) -> list[str]:
    """List the source commits that were run here with these very outputs, the newest first.

    A commit that changes nothing the pipeline reads makes no new MLflow run, so the run's commit
    may be an older one.
    """
    found: list[str] = []
    for commit in list(dict.fromkeys(git("log", "--walk-reflogs", "--format=%H", "HEAD").split()))[
        :RUNS_LOOKED_AT
    ]:
        with contextlib.suppress(OSError):
            if outputs(git("show", f"{commit}:dvc.lock")) == out:
                found.append(origin(commit)["source_commit"])
    return list(dict.fromkeys(found))


def is_running() -> bool:
    """Tell whether a run holds the workspace's lock."""
    path = WORKSPACE / "lock"
    if not path.is_file():
        return False
    with path.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def workspace() -> Json:
    """Tell what the last run was made of, and what the project says of itself."""
    state = read_json(WORKSPACE / "state.json")
    config = settings()
    paths = config.get("paths", {})
    there = (PROJECT / "dvc.lock").is_file()
    out = lock() if there else {}
    return {
        "running": is_running(),
        "done": bool(state.get("done")),
        "lock": there,
        "outputs": out,
        "changed": git("status", "--porcelain").splitlines() if there else [],
        **(origin("HEAD") if there else {}),
        "ran_at": ran_at(out) if there else [],
        "paths": {key: paths[key] for key in ("raw", "model", "metrics") if key in paths},
        "registered_model": config.get("mlflow", {}).get("registered_model", ""),
        "metrics": read_json(PROJECT / paths["metrics"]) if "metrics" in paths else {},
        "last_run": read_json(PROJECT / paths.get("last_run", "logs/last_run.json")),
        "platform": os.environ.get("PLATFORM_NAME", ""),
    }


def stored_outputs() -> list[Json]:
    """Read every output of dvc.lock from the remote and hash it, a directory with its files."""
    client, remote = s3(), os.environ["RUNNER_REMOTE_URL"]

    def fetch(path: str, md5: str) -> Json:
        bucket, key = bucket_and_key(remote, f"files/md5/{md5[:2]}/{md5[2:]}")
        row: Json = {"path": path, "md5": md5, "bucket": bucket, "key": key, "size": 0, "found": ""}
        code = outcome(lambda: client.head_object(Bucket=bucket, Key=key))
        if code != "allowed":
            return {**row, "missing": code}
        stored = object_md5(client, bucket, key)
        return {
            **row,
            "size": stored["size"],
            "found": stored["md5"] + (".dir" if md5.endswith(".dir") else ""),
        }

    rows = []
    for path, md5 in lock().items():
        row = fetch(path, md5)
        rows.append(row)
        if md5.endswith(".dir") and row["found"] == md5:
            listing = json.loads(
                client.get_object(Bucket=row["bucket"], Key=row["key"])["Body"].read()
            )
            rows.extend(fetch(f"{path}/{file['relpath']}", file["md5"]) for file in listing)
    return rows


def tracking(path: str, query: Mapping[str, str]) -> Json:
    """Ask the tracking server's REST API."""
    address = (
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    )
    with urllib.request.urlopen(address, timeout=TIMEOUT) as reply:  # noqa: S310 - the platform's own server
        return dict(json.load(reply))


def tracked_run() -> Json:
    """Read the MLflow run of the last pipeline run, and what the registry says of its model."""
    run_id = workspace()["last_run"].get("run_id", "")
    if not run_id:
        raise LookupError(
            "no file of the project names an MLflow run: the pipeline has not run to its end"
        )
    found = tracking("runs/get", {"run_id": run_id})["run"]
    name = settings()["mlflow"]["registered_model"]
    versions = tracking("model-versions/search", {"filter": f"run_id='{run_id}'"}).get(
        "model_versions", []
    )
    aliases: dict[str, str] = {}
    if versions:
        entry = tracking("registered-models/get", {"name": name})["registered_model"]
        aliases = {row["alias"]: row["version"] for row in entry.get("aliases", [])}
    sources = []
    for row in versions:
        source = row.get("source", "")
        if source.startswith("models:/"):
            logged = tracking(f"logged-models/{source[len('models:/') :]}", {})["model"]["info"]
            source = logged["artifact_uri"]
        sources.append(source)
    data = found["data"]
    return {
        "run_id": run_id,
        "status": found["info"]["status"],
        "artifact_uri": found["info"]["artifact_uri"],
        "tags": {row["key"]: row["value"] for row in data.get("tags", [])},
        "metrics": {row["key"]: row["value"] for row in data.get("metrics", [])},
        "versions": [row["version"] for row in versions],
        "sources": sources,
        "aliases": aliases,
    }


def predictions() -> Json:
    """Predict the test part with the registered candidate and with the pipeline's own file."""
    os.environ.update(
        MLFLOW_HTTP_REQUEST_TIMEOUT="10",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    )
    import joblib  # noqa: PLC0415 - there only
    import mlflow  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    lock()
    config = settings()
    own = joblib.load(PROJECT / config["paths"]["model"])
    rows = pd.read_csv(PROJECT / config["paths"]["x_test"])
    registered = mlflow.sklearn.load_model(
        f"models:/{config['mlflow']['registered_model']}@candidate"
    )
    first, second = own.predict(rows), registered.predict(rows)
    return {
        "rows": len(rows),
        "own_md5": file_md5(PROJECT / config["paths"]["model"]),
        "equal": bool(np.array_equal(first, second)),
        "largest_difference": float(np.abs(first - second).max()),
    }


def of_runner(given: Mapping[str, Any]) -> Json:
    """Read, in the runner's container, the chain from dvc.lock to the registry."""
    return gather(
        {
            "workspace": workspace,
            "run": tracked_run,
            "objects": stored_outputs,
            "reach": lambda: reach(given["buckets"]),
        }
    )


def of_model(_given: Mapping[str, Any]) -> Json:
    """Read what the registered model predicts; a place of its own, for importing MLflow is slow."""
    return gather({"predictions": predictions})


def pull() -> Json:
    """Clone the project, pull with an empty cache, and hash what came; the clone is removed."""
    for old in WORKSPACE.glob(f"{PULL_PREFIX}*"):
        if time.time() - old.stat().st_mtime > STALE_SECONDS:  # a verdict that was killed
            shutil.rmtree(old, ignore_errors=True)
    expected = lock()
    with tempfile.TemporaryDirectory(prefix=PULL_PREFIX, dir=WORKSPACE) as made:
        clone = Path(made) / "clone"
        git("clone", "--quiet", str(PROJECT), str(clone), at=WORKSPACE)
        local = (PROJECT / ".dvc" / "config.local").read_text()
        lines = [line for line in local.splitlines() if not line.startswith("site_cache_dir")]
        (clone / ".dvc" / "config.local").write_text("\n".join(lines))
        run(
            "dvc",
            "pull",
            "--quiet",
            at=clone,
            env={"DVC_SITE_CACHE_DIR": f"{made}/site", "AWS_MAX_ATTEMPTS": "2"},
        )
        came = {
            path: file_md5(clone / path)
            for path, md5 in expected.items()
            if not md5.endswith(".dir")
        }
        missing = [path for path in expected if not (clone / path).exists()]
        wrong = [path for path, md5 in came.items() if md5 != expected[path]]
    return {"outputs": len(expected), "missing": missing, "wrong": wrong}


def of_clone(_given: Mapping[str, Any]) -> Json:
    """Read what a fresh clone can pull."""
    return gather({"pull": pull})


PLACES: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "clone": of_clone,
    "host": of_host,
    "minio": of_minio,
    "mlflow": of_mlflow,
    "model": of_model,
    "runner": of_runner,
    "strangers": of_strangers,
}


def main(argv: list[str]) -> int:
    """Print the facts of the place that the first word names, given the second: JSON in base64."""
    try:
        found = PLACES[argv[0]](json.loads(base64.b64decode(argv[1])))
    except CannotRunError as error:
        found = {"cannot_run": str(error)}
    # apart from what libraries print
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
