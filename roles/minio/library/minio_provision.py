# Ansible reads the documentation blocks first, so they stand before the imports.
# ruff: noqa: E402
"""Make buckets, policies and users of a MinIO server as declared, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: minio_provision
short_description: Make buckets, policies and users of a MinIO server as declared
description:
  - Reads what the server has, compares it with what is declared, and writes only the differences.
  - All input is checked, against the server too, before the first write.
  - An item that is not listed is left alone; nothing is purged.
  - An attribute that is omitted is left alone. An attribute that is given is made exactly so, a
    list or a dictionary as a whole. So O(users[].policies=[]) detaches all policies of a user, and
    a user without O(users[].policies) keeps those it has.
  - Policies are written first, then buckets, then users. What is to be absent goes last.
options:
  endpoint:
    description: Address of the S3 API, C(host:port) or C(http(s)://host:port).
    type: str
    required: true
  secure:
    description:
      - Whether to use TLS.
      - When omitted, the scheme of O(endpoint) decides; C(host:port) alone means TLS.
    type: bool
  access_key:
    description: Access key of the root user, or of a user who may administer the server.
    type: str
  access_key_file:
    description: File that holds the access key, read where the module runs.
    type: path
  secret_key:
    description: Secret key that belongs to the access key.
    type: str
  secret_key_file:
    description: File that holds the secret key, read where the module runs.
    type: path
  ca_file:
    description: PEM bundle that the server's certificate is checked with, instead of certifi's.
    type: path
  wait:
    description:
      - Seconds to wait for a server that does not answer yet or is still starting.
      - A request under way is not cut off, so the call may last 30 seconds longer.
    type: int
    default: 30
  buckets:
    description: Buckets.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the bucket.
        type: str
        required: true
      state:
        description: Whether the bucket is there.
        type: str
        choices: [present, absent]
        default: present
      force:
        description:
          - With O(buckets[].state=absent), remove the objects too, in all their versions.
          - Objects under retention or legal hold are never removed.
        type: bool
        default: false
      versioning:
        description: Whether new versions are kept. V(false) suspends versioning that was on.
        type: bool
      object_lock:
        description:
          - Whether the bucket supports retention and legal hold.
          - Fixed when the bucket is created, and it needs versioning.
        type: bool
      quota:
        description: Hard limit in bytes; V(0) means none.
        type: int
      tags:
        description: All tags of the bucket.
        type: dict
      lifecycle:
        description:
          - All lifecycle rules of the bucket.
          - MinIO drops an abort-incomplete-upload action without a word, so there is none here; the
            server removes stale uploads itself (its setting C(api stale_uploads_expiry)).
        type: list
        elements: dict
        suboptions:
          id:
            description: Name of the rule.
            type: str
            required: true
          prefix:
            description: The rule holds for keys that begin so.
            type: str
            default: ""
          expire_days:
            description: Age in days at which an object expires.
            type: int
          expire_noncurrent_days:
            description: Days after which a version that was replaced or deleted is removed.
            type: int
          expire_delete_markers:
            description: Remove a delete marker that is the last version left of its object.
            type: bool
            default: false
  policies:
    description: IAM policies.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the policy.
        type: str
        required: true
      state:
        description: Whether the policy is there. One that somebody still has is not removed.
        type: str
        choices: [present, absent]
        default: present
      statements:
        description: What the policy says; required unless it is to be absent.
        type: list
        elements: dict
        suboptions:
          effect:
            description: Whether the statement allows or denies.
            type: str
            choices: [Allow, Deny]
            default: Allow
          actions:
            description: Actions such as V(s3:GetObject), one in each entry.
            type: list
            elements: str
            required: true
          resources:
            description: ARNs such as V(arn:aws:s3:::bucket/*); required for C(s3) actions.
            type: list
            elements: str
            default: []
          conditions:
            description: Operator, then key, then one value or a list of values.
            type: dict
            default: {}
  users:
    description: Users.
    type: list
    elements: dict
    default: []
    suboptions:
      access_key:
        description: Access key, the name of the user; 3 characters or more.
        type: str
        required: true
      secret_key:
        description:
          - Secret key, 8 characters or more; required unless the user is to be absent.
          - It is compared by one request signed with it, and written only where it differs.
        type: str
      state:
        description: Whether the user is there.
        type: str
        choices: [present, absent]
        default: present
      status:
        description:
          - Whether the user may log in.
          - MinIO neither checks the key of a disabled user nor changes its policies. Both are made
            as declared when the user is enabled.
        type: str
        choices: [enabled, disabled]
        default: enabled
      policies:
        description: Names of all policies attached to the user; those it has by a group stay.
        type: list
        elements: str
requirements:
  - minio >= 7.2.20, < 8
attributes:
  check_mode:
    support: full
    description: Can run in check mode and return the changes it would make.
  diff_mode:
    support: full
    description: Returns what changes, before and after; of a secret only whether it changes.
  idempotent:
    support: full
    description: A second call with the same input changes nothing and makes no write.
author:
  - the project's maintainers
"""

EXAMPLES = r"""
- name: Make a bucket, and a user who may use only that bucket
  minio_provision:
    endpoint: http://127.0.0.1:9000
    access_key_file: /run/secrets/minio_root_user
    secret_key_file: /run/secrets/minio_root_password
    buckets:
      - name: datasets
        versioning: true
        quota: 10737418240
        lifecycle:
          - id: old-versions
            expire_noncurrent_days: 30
    policies:
      - name: datasets-rw
        statements:
          - actions: [s3:ListBucket, s3:GetBucketLocation]
            resources: [arn:aws:s3:::datasets]
          - actions: [s3:GetObject, s3:PutObject, s3:DeleteObject]
            resources: [arn:aws:s3:::datasets/*]
    users:
      - access_key: trainer
        secret_key: "{{ trainer_secret_key }}"
        policies: [datasets-rw]

- name: Remove a user and a bucket with everything in it
  minio_provision:
    endpoint: http://127.0.0.1:9000
    access_key_file: /run/secrets/minio_root_user
    secret_key_file: /run/secrets/minio_root_password
    users:
      - access_key: trainer
        state: absent
    buckets:
      - name: datasets
        state: absent
        force: true
"""

RETURN = r"""
results:
  description:
    - One entry for each item, in the order of work; of a call that failed, what was written.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: V(bucket), V(policy) or V(user).
      type: str
    name:
      description: Name of the item.
      type: str
    changed:
      description: Whether this item changed, or would in check mode.
      type: bool
    changes:
      description: What changed.
      type: list
      elements: str
  sample:
    - kind: bucket
      name: datasets
      changed: true
      changes: [created, versioning on]
"""

import ipaddress
import json
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar
from xml.etree.ElementTree import ParseError

from ansible.module_utils.basic import AnsibleModule

try:
    import certifi
    import urllib3
    from minio import Minio, MinioAdmin
    from minio.commonconfig import ENABLED, Filter, Tags
    from minio.credentials.providers import StaticProvider
    from minio.deleteobjects import DeleteObject
    from minio.error import MinioAdminException, MinioException, S3Error
    from minio.lifecycleconfig import (
        Expiration,
        LifecycleConfig,
        NoncurrentVersionExpiration,
        Rule,
    )
    from minio.versioningconfig import SUSPENDED, VersioningConfig
except ImportError as error:
    IMPORT_ERROR = str(error)
else:
    IMPORT_ERROR = ""

T = TypeVar("T")
Attributes = dict[str, Any]

MIN_ACCESS_KEY = 3
MIN_SECRET_KEY = 8
BUILT_IN_POLICIES = {"consoleAdmin", "diagnostics", "readonly", "readwrite", "writeonly"}
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
RESOURCE = re.compile(r"arn:(aws:s3|minio:kms):::\S+")
# Given, the SDK does not ask the server for the region before the first request to each bucket.
REGION = "us-east-1"
CONNECT_SECONDS = 5
READ_SECONDS = 30
SERVER_FAULT = 500
IPV6 = 6

STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "endpoint": {"type": "str", "required": True},
    "secure": {"type": "bool"},
    "access_key": {"type": "str", "no_log": True},
    "access_key_file": {"type": "path", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "secret_key_file": {"type": "path", "no_log": False},
    "ca_file": {"type": "path"},
    "wait": {"type": "int", "default": 30},
    "buckets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": STATE,
            "force": {"type": "bool", "default": False},
            "versioning": {"type": "bool"},
            "object_lock": {"type": "bool"},
            "quota": {"type": "int"},
            "tags": {"type": "dict"},
            "lifecycle": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "id": {"type": "str", "required": True},
                    "prefix": {"type": "str", "default": ""},
                    "expire_days": {"type": "int"},
                    "expire_noncurrent_days": {"type": "int"},
                    "expire_delete_markers": {"type": "bool", "default": False},
                },
            },
        },
    },
    "policies": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": STATE,
            "statements": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "effect": {"type": "str", "choices": ["Allow", "Deny"], "default": "Allow"},
                    "actions": {"type": "list", "elements": "str", "required": True},
                    "resources": {"type": "list", "elements": "str", "default": []},
                    "conditions": {"type": "dict", "default": {}},
                },
            },
        },
    },
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "access_key": {"type": "str", "required": True, "no_log": False},
            "secret_key": {"type": "str", "no_log": True},
            "state": STATE,
            "status": {"type": "str", "choices": ["enabled", "disabled"], "default": "enabled"},
            "policies": {"type": "list", "elements": "str"},
        },
    },
}


class ProvisionError(Exception):
    """A fault told in one sentence: the name, the value seen, the next step."""


class Step(NamedTuple):
    """One write: the words for it, and the call that does it."""

    action: str
    run: Callable[[], object]


class Option(NamedTuple):
    """An option of a bucket: what a new one has, how to read it, what is wanted, the write."""

    blank: object
    read: Callable[[], object]
    want: object
    step: Step


class Item(NamedTuple):
    """What one bucket, policy or user needs; no steps where nothing differs."""

    kind: str
    name: str
    before: Attributes
    after: Attributes
    steps: list[Step]


class ProvisionModule(AnsibleModule):  # type: ignore[misc]  # ansible-core ships no types
    """An AnsibleModule that hides what a misspelt option holds: it may be a secret."""

    def fail_json(self, msg: str, **kwargs: object) -> NoReturn:
        """Fail with the values of unknown options, and of malformed items, masked."""
        self.no_log_values.update(hidden_values(self.params, ARGUMENTS))
        super().fail_json(msg, **kwargs)
        raise AssertionError  # not reached: the line above exits


class Endpoint(NamedTuple):
    """Where the server is and how it is trusted."""

    address: str
    secure: bool
    ca_file: str | None

    def __str__(self) -> str:
        """Return the URL."""
        return f"{'https' if self.secure else 'http'}://{self.address}"


class Server:
    """The requests this module makes; a fault becomes a ProvisionError that names the request."""

    def __init__(self, endpoint: Endpoint, access_key: str, secret_key: str) -> None:
        """Prepare the clients; the first request is `wait`'s."""
        self.buckets: set[str] = set()
        self.policies: dict[str, Attributes] = {}
        self.endpoint = endpoint
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=endpoint.ca_file or certifi.where(),
        )
        self.s3 = self._client(access_key, secret_key)
        # A client that goes away closes the connections it shares with the others.
        self._clients = [self.s3]
        self.admin = MinioAdmin(
            endpoint=endpoint.address,
            credentials=StaticProvider(access_key=access_key, secret_key=secret_key),
            region=REGION,
            secure=endpoint.secure,
            http_client=self._http,
        )

    def _client(self, access_key: str, secret_key: str) -> Minio:
        return Minio(
            endpoint=self.endpoint.address,
            access_key=access_key,
            secret_key=secret_key,
            secure=self.endpoint.secure,
            region=REGION,
            http_client=self._http,
        )

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Return what `call` returns; raise ProvisionError with `what` and the server's words."""
        try:
            return call()
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as error:
            raise ProvisionError(
                f"MinIO at {self.endpoint} did not {what}: {told(error)}"
            ) from error
        except (ParseError, ValueError, OSError) as error:
            raise ProvisionError(
                f"{self.endpoint} did not {what}: the answer is not MinIO's ({told(error)}); "
                f"give the address of the S3 API as endpoint"
            ) from error

    def wait(self, seconds: int) -> None:
        """Return once the server has answered both APIs; raise ProvisionError after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.buckets = self.ask(
                    "list its buckets", lambda: {bucket.name for bucket in self.s3.list_buckets()}
                )
                self.policies = self.ask(
                    "list its policies", lambda: json.loads(self.admin.policy_list())
                )
            except ProvisionError as error:
                if not passes(error.__cause__):
                    raise
                if time.monotonic() >= end:
                    raise ProvisionError(
                        f"{error} (waited {seconds} s; see whether the server runs there, "
                        f"or give more seconds as wait)"
                    ) from error.__cause__
            else:
                return
            time.sleep(0.2)

    def user(self, access_key: str) -> Attributes | None:
        """Return status and policyName of a user, or None.

        One request for each user: the list of all of them is encrypted with a key that takes both
        sides 200 ms to derive.
        """

        def info() -> Attributes | None:
            try:
                answer: Attributes = json.loads(self.admin.user_info(access_key=access_key))
            except MinioAdminException as error:
                if admin_code(error) == "XMinioAdminNoSuchUser":
                    return None
                raise
            return answer

        return self.ask(f"show user {access_key}", info)

    def secret_holds(self, access_key: str, secret_key: str) -> bool:
        """Tell whether the secret key is the one of that enabled user, without a write.

        The signature is checked before the permission, so a denied request proves the key.
        """
        client = self._client(access_key, secret_key)
        self._clients.append(client)

        def request() -> bool:
            try:
                client.list_buckets()
            except S3Error as error:
                if error.code == "SignatureDoesNotMatch":
                    return False
                if error.code != "AccessDenied":
                    raise
            return True

        return self.ask(f"check the secret key of user {access_key}", request)

    def has_object_lock(self, bucket: str) -> bool:
        """Tell whether the bucket was created with object lock."""

        def request() -> bool:
            try:
                self.s3.get_object_lock_config(bucket_name=bucket)
            except S3Error as error:
                if error.code == "ObjectLockConfigurationNotFoundError":
                    return False
                raise
            return True

        return self.ask(f"show the object lock of bucket {bucket}", request)

    def is_empty(self, bucket: str) -> bool:
        """Tell whether the bucket holds nothing, not even a version or a delete marker."""
        return self.ask(
            f"list bucket {bucket}",
            lambda: (
                next(
                    self.s3.list_objects(bucket_name=bucket, recursive=True, include_version=True),
                    None,
                )
                is None
            ),
        )

    def remove_bucket(self, bucket: str, *, force: bool) -> None:
        """Remove the bucket, with `force` all its objects and versions first."""
        if force:
            objects = self.s3.list_objects(bucket_name=bucket, recursive=True, include_version=True)
            errors = self.s3.remove_objects(
                bucket_name=bucket,
                delete_object_list=(
                    DeleteObject(name=found.object_name, version_id=found.version_id)
                    for found in objects
                ),
            )
            kept = list(errors)
            if kept:
                raise ProvisionError(
                    f"bucket {bucket}: {len(kept)} objects stay, the first is {kept[0].name!r} "
                    f"({kept[0].code}: {kept[0].message}), the others are removed; lift what "
                    f"protects them, then run again"
                )
        self.s3.remove_bucket(bucket_name=bucket)


def told(error: BaseException) -> str:
    """Return what an exception says, without request ids and object addresses."""
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    if isinstance(error, MinioAdminException):
        message = re.search(r'"Message":"((?:[^"\\]|\\.)*)"', str(error))
        return f"{admin_code(error)}: {message.group(1)}" if message else str(error)
    return str(error)


def admin_code(error: BaseException) -> str:
    """Return MinIO's code in an admin error (the SDK keeps it in the text), or ''."""
    code = re.search(r'"Code":"(\w+)"', str(error))
    return code.group(1) if code else ""


def passes(error: BaseException | None) -> bool:
    """Tell whether waiting may help: no connection, or a server that is not ready yet."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return False
    if isinstance(error, urllib3.exceptions.HTTPError):
        return True
    if isinstance(error, S3Error):
        return error.response.status >= SERVER_FAULT
    status = re.search(r"[Ss]tatus(?: code)?:? (\d+)|Response code: (\d+)", str(error))
    return status is not None and int(status[1] or status[2]) >= SERVER_FAULT


def hidden_values(given: object, options: dict[str, dict[str, Any]]) -> set[str]:
    """Return every text and number that stands where no known, open option is."""
    if not isinstance(given, dict):
        return set(leaves(given))
    found: set[str] = set()
    for key, value in given.items():
        option = options.get(key)
        if option is None or option.get("no_log"):
            # Ansible's own settings travel beside the options and hold no secret.
            found.update(() if str(key).startswith("_ansible_") else leaves(value))
        elif "options" in option and value is not None:
            for element in listed(value):
                found |= hidden_values(element, option["options"])
    return found


def leaves(value: object) -> Iterator[str]:
    """Yield each text and number in nested lists and dictionaries, unless it is too short to hide.

    A masked value is masked wherever it occurs, so one or two characters would garble the message.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for element in value:
            yield from leaves(element)
    elif isinstance(value, str | int | float) and len(str(value)) >= MIN_ACCESS_KEY:
        yield str(value)


def parse_endpoint(endpoint: str, secure: bool | None, ca_file: str | None) -> Endpoint:
    """Return where the server is; raise ProvisionError for what is no address."""
    has_scheme = "://" in endpoint
    url = urllib.parse.urlsplit(endpoint if has_scheme else f"//{endpoint}")
    if "@" in url.netloc:
        raise ProvisionError(
            "endpoint holds a user name: give host:port, and the keys as their own options"
        )
    try:
        port = url.port
    except ValueError:
        port = None
    rest = url.path.strip("/") or url.query or url.fragment
    if (
        url.scheme not in ("", "http", "https")
        or not url.hostname
        or rest
        or not (port or has_scheme)
    ):
        raise ProvisionError(
            f"endpoint {endpoint!r} is not an address: give host:port or http(s)://host:port"
        )
    by_scheme = url.scheme != "http"
    if has_scheme and secure is not None and secure != by_scheme:
        raise ProvisionError(
            f"endpoint {endpoint!r} contradicts secure={str(secure).lower()}: leave one of them out"
        )
    result = Endpoint(url.netloc, by_scheme if secure is None else secure, ca_file)
    if ca_file and not result.secure:
        raise ProvisionError(f"ca_file {ca_file} is of no use to {result}: drop it, or use https")
    if ca_file and not Path(ca_file).is_file():
        raise ProvisionError(
            f"ca_file {ca_file} is no file where the module runs: give a PEM bundle"
        )
    return result


def read_key(option: str, value: str | None, path: str | None) -> str:
    """Return a root key, given as a value or by the file that holds it."""
    if path is not None:
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ProvisionError(
                f"{option}_file {path} cannot be read where the module runs ({reason}): "
                f"give a readable file or {option}"
            ) from error
    if not value:
        raise ProvisionError(
            f"{option} is empty{f' in {path}' if path else ''}: give the root user's"
        )
    return value


def check_input(params: Attributes, root: str) -> None:
    """Raise ProvisionError for the first item that could not be made, whatever the server holds."""
    if params["wait"] < 0:
        raise ProvisionError(f"wait is {params['wait']}: give 0 or more seconds")
    for option, key in (("buckets", "name"), ("policies", "name"), ("users", "access_key")):
        names = [item[key] for item in params[option]]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ProvisionError(f"{option} lists {twice!r} twice: merge the two entries")
    for bucket in params["buckets"]:
        check_bucket(bucket)
    for policy in params["policies"]:
        check_policy(policy)
    for user in params["users"]:
        check_user(user, root)


def check_bucket(bucket: Attributes) -> None:
    """Raise ProvisionError for a bucket with an impossible name, quota, lock or lifecycle."""
    name = bucket["name"]
    if (
        not BUCKET_NAME.fullmatch(name)
        or re.search(r"\.\.|\.-|-\.", name)
        or re.fullmatch(r"\d+(\.\d+){3}", name)
        or name == "minio"
    ):
        raise ProvisionError(
            f"bucket name {name!r} is invalid: use 3 to 63 of a-z, 0-9, '-' and single '.', "
            f"letter or digit first and last, no IP address and not 'minio'"
        )
    if (bucket["quota"] or 0) < 0:
        raise ProvisionError(
            f"bucket {name}: quota is {bucket['quota']}: give bytes, or 0 for none"
        )
    if bucket["object_lock"] and bucket["versioning"] is False:
        raise ProvisionError(
            f"bucket {name}: object_lock true needs versions, but versioning is false: drop one"
        )
    rules = bucket["lifecycle"] or []
    ids = [rule["id"] for rule in rules]
    for rule in rules:
        where = f"bucket {name}: lifecycle rule {rule['id']!r}"
        if ids.count(rule["id"]) > 1:
            raise ProvisionError(f"{where} is there twice: give each its own id")
        for option in ("expire_days", "expire_noncurrent_days"):
            if rule[option] is not None and rule[option] < 1:
                raise ProvisionError(f"{where}: {option} is {rule[option]}: give 1 or more days")
        if rule["expire_days"] and rule["expire_delete_markers"]:
            raise ProvisionError(
                f"{where}: expire_days {rule['expire_days']} and expire_delete_markers exclude "
                f"each other: make them two rules"
            )
        if not (
            rule["expire_days"] or rule["expire_noncurrent_days"] or rule["expire_delete_markers"]
        ):
            raise ProvisionError(
                f"{where} does nothing: give expire_days or expire_noncurrent_days"
            )


def check_policy(policy: Attributes) -> None:
    """Raise ProvisionError for a policy that the server would not take."""
    name = policy["name"]
    if not name or name != name.strip() or "," in name:
        raise ProvisionError(
            f"policy name {name!r} is invalid: no comma, no space at its ends, not empty"
        )
    if policy["state"] == "absent":
        return
    if not policy["statements"]:
        raise ProvisionError(f"policy {name} has no statements: give at least one, or state absent")
    for number, statement in enumerate(policy["statements"], 1):
        check_statement(f"policy {name}, statement {number}", statement)


def check_statement(where: str, statement: Attributes) -> None:
    """Raise ProvisionError for a statement that names nothing, or something in no known form."""
    if not statement["actions"]:
        raise ProvisionError(f"{where} has no actions: give at least one, such as s3:GetObject")
    for action in statement["actions"]:
        if not re.fullmatch(r"\*|[a-z0-9]+:[A-Za-z*?]+", action):
            raise ProvisionError(
                f"{where}: action {action!r} is invalid: give one service:Name in each entry"
            )
    for resource in statement["resources"]:
        if not RESOURCE.fullmatch(resource):
            raise ProvisionError(
                f"{where}: resource {resource!r} is invalid: write arn:aws:s3:::bucket or "
                f"arn:aws:s3:::bucket/prefix*"
            )
    s3_action = next((each for each in statement["actions"] if each.startswith("s3:")), None)
    if s3_action and not statement["resources"]:
        raise ProvisionError(
            f"{where}: action {s3_action} has no resources: name the buckets it is for"
        )
    for operator, keys in statement["conditions"].items():
        check_condition(f"{where}: condition {operator}", operator, keys)


def check_condition(where: str, operator: str, keys: object) -> None:
    """Raise ProvisionError for a condition that MinIO would refuse or read as something else."""
    if not isinstance(keys, dict) or not keys:
        raise ProvisionError(f"{where} is {keys!r}: give a dictionary of keys")
    for key, value in ((key, value) for key, values in keys.items() for value in listed(values)):
        if not isinstance(value, str | int):
            raise ProvisionError(f"{where} {key} is {value!r}: give text, an integer or a flag")
        if operator.endswith("IpAddress"):
            try:
                network = ipaddress.ip_network(str(value), strict=False)
            except ValueError as error:
                raise ProvisionError(
                    f"{where} {key} is {value!r}: give a network such as 10.0.0.0/8"
                ) from error
            if network.version == IPV6 and "/" not in str(value):
                # MinIO widens a bare IPv6 address to /32.
                raise ProvisionError(
                    f"{where} {key} is {value!r}: write {network} to mean it alone"
                )


def check_user(user: Attributes, root: str) -> None:
    """Raise ProvisionError for an impossible user; a secret is told by its length alone."""
    name = user["access_key"]
    if len(name) < MIN_ACCESS_KEY:
        raise ProvisionError(
            f"user {name!r}: the access key has {len(name)} characters: "
            f"give {MIN_ACCESS_KEY} or more"
        )
    if "=" in name or "," in name:
        raise ProvisionError(
            f"user {name!r}: an access key holds no '=' and no ',': choose another"
        )
    if name == root:
        raise ProvisionError(
            f"user {name} is the one this call logs in as: choose another access key"
        )
    if user["state"] == "absent":
        return
    if user["secret_key"] is None:
        raise ProvisionError(f"user {name} has no secret_key: give one, or state absent")
    if len(user["secret_key"]) < MIN_SECRET_KEY:
        raise ProvisionError(
            f"user {name}: the secret key has {len(user['secret_key'])} characters: "
            f"give {MIN_SECRET_KEY} or more"
        )


def listed(value: object) -> list[Any]:
    """Return a value as a list, as policies allow both."""
    return value if isinstance(value, list) else [value]


def document(statements: list[Attributes]) -> Attributes:
    """Return the policy document for declared statements."""
    result = []
    for statement in statements:
        parts = {
            "Effect": statement["effect"],
            "Action": statement["actions"],
            "Resource": statement["resources"],
            "Condition": statement["conditions"],
        }
        result.append({key: value for key, value in parts.items() if value})
    return {"Version": "2012-10-17", "Statement": result}


def canonical(policy: Attributes) -> list[Attributes]:
    """Return a policy's statements in a form that is equal where the meaning is equal.

    MinIO keeps sets: it drops repeated statements and returns actions, resources and condition
    values in any order; numbers, flags, networks and times come back in its own spelling.
    A statement's Sid is a mere name.
    """
    unique = {}
    for statement in policy.get("Statement") or []:
        plain: Attributes = {}
        for key, value in statement.items():
            if key == "Condition":
                plain[key] = {
                    operator: {
                        name: sorted({condition_value(operator, each) for each in listed(values)})
                        for name, values in keys.items()
                    }
                    for operator, keys in value.items()
                }
            elif key == "Effect":
                plain[key] = value
            elif key != "Sid":
                plain[key] = sorted(set(listed(value)))
        unique[json.dumps(plain, sort_keys=True)] = plain
    return [unique[key] for key in sorted(unique)]


def condition_value(operator: str, value: object) -> str:
    """Return a condition value as MinIO spells it, as text."""
    if isinstance(value, bool) or operator in ("Bool", "Null"):
        return str(value).lower()
    text = str(value)
    if operator.startswith("Numeric") and re.fullmatch(r"[+-]?\d+", text):
        return str(int(text))
    if operator.startswith("Date"):
        return re.sub(r"\.\d+", "", text).replace("+00:00", "Z")
    if operator.endswith("IpAddress"):
        return str(ipaddress.ip_network(text, strict=False))
    return text


def rules_of(config: LifecycleConfig | None) -> list[Attributes]:
    """Return the server's lifecycle rules in the shape of the option, by id.

    What the option cannot say is kept as text under `other`, so that it counts as a difference.
    """
    rules = []
    for rule in config.rules if config else []:
        expiration, old = rule.expiration, rule.noncurrent_version_expiration
        other = [
            rule.status if rule.status != ENABLED else None,
            rule.transition,
            rule.noncurrent_version_transition,
            rule.rule_filter and (rule.rule_filter.tag or rule.rule_filter.and_operator),
            expiration and expiration.date,
            old and old.newer_noncurrent_versions,
        ]
        rules.append(
            {
                "id": rule.rule_id,
                "prefix": (rule.rule_filter and rule.rule_filter.prefix) or "",
                "expire_days": expiration.days if expiration else None,
                "expire_noncurrent_days": old.noncurrent_days if old else None,
                "expire_delete_markers": bool(
                    expiration and expiration.expired_object_delete_marker
                ),
                **({"other": str([each for each in other if each])} if any(other) else {}),
            }
        )
    return sorted(rules, key=lambda rule: str(rule["id"]))


def lifecycle_config(rules: list[Attributes]) -> LifecycleConfig:
    """Return the SDK's form of declared lifecycle rules."""
    return LifecycleConfig(
        rules=[
            Rule(
                status=ENABLED,
                rule_id=rule["id"],
                rule_filter=Filter(prefix=rule["prefix"]),
                expiration=Expiration(
                    days=rule["expire_days"],
                    expired_object_delete_marker=rule["expire_delete_markers"] or None,
                )
                if rule["expire_days"] or rule["expire_delete_markers"]
                else None,
                noncurrent_version_expiration=NoncurrentVersionExpiration(
                    noncurrent_days=rule["expire_noncurrent_days"]
                )
                if rule["expire_noncurrent_days"]
                else None,
            )
            for rule in rules
        ]
    )


def bucket_tags(bucket: str, tags: Attributes) -> Tags:
    """Return the SDK's form of declared tags; raise ProvisionError where one is out of bounds."""
    result = Tags.new_bucket_tags()
    for key, value in tags.items():
        try:
            result[str(key)] = str(value)
        except ValueError as error:
            raise ProvisionError(
                f"bucket {bucket}: tag {key!r} is {value!r}: {error}; give at most 50 tags, keys "
                f"of 1 to 128 and values of up to 256 characters"
            ) from error
    return result


def bucket_options(server: Server, bucket: Attributes) -> dict[str, Option]:
    """Return those options of a bucket that are given, each with how to read and write it."""
    name, s3, admin = bucket["name"], server.s3, server.admin
    on, size = bucket["versioning"], bucket["quota"]
    rules = sorted(bucket["lifecycle"] or [], key=lambda rule: str(rule["id"]))
    tags = bucket_tags(name, bucket["tags"] or {})
    options = {
        "versioning": Option(
            bool(bucket["object_lock"]),
            # One that was never on and one that is suspended are both off.
            lambda: s3.get_bucket_versioning(bucket_name=name).status == ENABLED,
            on,
            Step(
                "versioning on" if on else "versioning suspended",
                partial(
                    s3.set_bucket_versioning,
                    bucket_name=name,
                    config=VersioningConfig(status=ENABLED if on else SUSPENDED),
                ),
            ),
        ),
        "quota": Option(
            0,
            lambda: json.loads(admin.bucket_quota_get(bucket=name)).get("quota", 0),
            size,
            Step(f"quota {size}", partial(admin.bucket_quota_set, bucket=name, size=size)),
        ),
        "lifecycle": Option(
            [],
            lambda: rules_of(s3.get_bucket_lifecycle(bucket_name=name)),
            rules,
            Step(
                "lifecycle set",
                partial(s3.set_bucket_lifecycle, bucket_name=name, config=lifecycle_config(rules)),
            )
            if rules
            else Step("lifecycle removed", partial(s3.delete_bucket_lifecycle, bucket_name=name)),
        ),
        "tags": Option(
            {},
            lambda: dict(s3.get_bucket_tags(bucket_name=name) or {}),
            dict(tags),
            Step("tags set", partial(s3.set_bucket_tags, bucket_name=name, tags=tags))
            if tags
            else Step("tags removed", partial(s3.delete_bucket_tags, bucket_name=name)),
        ),
    }
    return {key: option for key, option in options.items() if bucket[key] is not None}


def plan_bucket(server: Server, bucket: Attributes) -> Item:
    """Return what a bucket that is to be present needs."""
    name, lock = bucket["name"], bucket["object_lock"]
    new = name not in server.buckets
    before: Attributes = {} if new else {"state": "present"}
    after: Attributes = {"state": "present"}
    steps = []
    if new:
        after.update({"object_lock": True} if lock else {})
        make = partial(server.s3.make_bucket, bucket_name=name, object_lock=bool(lock))
        steps.append(Step("created", make))
    elif lock is not None and server.has_object_lock(name) != lock:
        raise ProvisionError(
            f"bucket {name}: object_lock is to be {str(lock).lower()}, but the bucket was created "
            f"{'without' if lock else 'with'} it and it stays so: drop the option, or move the "
            f"objects to a new bucket"
        )
    for key, option in bucket_options(server, bucket).items():
        now = option.blank if new else server.ask(f"show the {key} of bucket {name}", option.read)
        before.update({} if new else {key: now})
        after[key] = option.want
        if now != option.want:
            steps.append(option.step)
    return Item("bucket", name, before, after, steps)


def plan_bucket_removal(server: Server, bucket: Attributes) -> Item:
    """Return what a bucket that is to be absent needs; raise where objects would go."""
    name, force = bucket["name"], bucket["force"]
    if name not in server.buckets:
        return Item("bucket", name, {}, {}, [])
    if not force and not server.is_empty(name):
        raise ProvisionError(
            f"bucket {name} is to be absent but is not empty: remove its objects and their "
            f"versions, or set force to remove them with it"
        )
    step = Step("removed", partial(server.remove_bucket, name, force=force))
    return Item("bucket", name, {"state": "present"}, {}, [step])


def plan_policy(server: Server, policy: Attributes) -> Item:
    """Return what a policy that is to be present needs."""
    name = policy["name"]
    wanted = document(policy["statements"])
    found = server.policies.get(name)
    before = {} if found is None else {"statements": canonical(found)}
    after = {"statements": canonical(wanted)}
    steps = []
    if before != after:
        write = partial(server.admin.policy_add, policy_name=name, policy=wanted)
        steps.append(Step("created" if found is None else "statements changed", write))
    return Item("policy", name, before, after, steps)


def plan_policy_removals(server: Server, absent: list[str], users: list[Item]) -> list[Item]:
    """Return what policies that are to be absent need; raise for one still in use after `users`."""
    there = [name for name in absent if name in server.policies]
    built_in = next((name for name in there if name in BUILT_IN_POLICIES), None)
    if built_in:
        raise ProvisionError(
            f"policy {built_in} is built into MinIO and cannot be removed: drop the entry"
        )
    entities = (
        server.ask(
            "show who has the policies " + ", ".join(there),
            lambda: json.loads(
                server.admin.get_policy_entities(users=[], groups=[], policies=there)
            ),
        )
        if there
        else {}
    )
    for mapping in entities.get("policyMappings") or []:
        policy = mapping["policy"]
        freed = {
            user.name for user in users if not user.after or policy not in user.after["policies"]
        }
        holders = [
            *(f"user {name}" for name in mapping.get("users") or [] if name not in freed),
            *(f"group {name}" for name in mapping.get("groups") or []),
        ]
        if holders:
            raise ProvisionError(
                f"policy {policy} is to be absent but {', '.join(holders)} still has it: "
                f"detach it there first, or list that user with its other policies"
            )
    return [
        Item(
            "policy",
            name,
            {"statements": canonical(server.policies[name])},
            {},
            [Step("removed", partial(server.admin.policy_remove, policy_name=name))],
        )
        if name in there
        else Item("policy", name, {}, {}, [])
        for name in absent
    ]


def attached(info: Attributes | None) -> list[str]:
    """Return the names of a user's own policies, from what the server tells of the user."""
    return sorted(filter(None, (info or {}).get("policyName", "").split(",")))


def plan_user(server: Server, user: Attributes) -> Item:
    """Return what a user that is to be present needs."""
    name, secret, status = user["access_key"], user["secret_key"], user["status"]
    admin, found = server.admin, server.user(name)
    was = found["status"] if found else None
    have = attached(found)
    want = have if user["policies"] is None else sorted(set(user["policies"]))
    if was == status == "disabled":
        # MinIO neither checks nor changes anything of a disabled user.
        same, want = True, have
    else:
        same = was == "enabled" and server.secret_holds(name, secret)
    steps = []
    if not same:
        words = {None: "created", "enabled": "secret key changed", "disabled": "enabled"}
        # This enables the user, too.
        write = partial(admin.user_add, access_key=name, secret_key=secret)
        steps.append(Step(words[was], write))
    if want != have:
        # One cheap write for the whole set; attaching and detaching take 300 ms each.
        write = partial(admin.policy_set, policy_name=",".join(want), user=name)
        steps.append(Step(f"policies {', '.join(want) or 'none'}", write))
    if status == "disabled" and was != "disabled":
        steps.append(Step("disabled", partial(admin.user_disable, access_key=name)))
    before = {"status": was, "secret": "unchanged", "policies": have} if found else {}
    after = {"status": status, "secret": "unchanged" if same else "changed", "policies": want}
    return Item("user", name, before, after, steps)


def plan_user_removal(server: Server, name: str) -> Item:
    """Return what a user that is to be absent needs."""
    found = server.user(name)
    if not found:
        return Item("user", name, {}, {}, [])
    before = {"status": found["status"], "policies": attached(found)}
    step = Step("removed", partial(server.admin.user_remove, access_key=name))
    return Item("user", name, before, {}, [step])


def plan(server: Server, params: Attributes) -> list[Item]:
    """Return every item with what it needs, in the order of work; nothing is written."""
    buckets, policies, users = params["buckets"], params["policies"], params["users"]
    removed = [each["name"] for each in policies if each["state"] == "absent"]
    made = {each["name"] for each in policies if each["state"] == "present"}
    for user in users:
        for name in user["policies"] or [] if user["state"] == "present" else []:
            if name in removed:
                raise ProvisionError(
                    f"user {user['access_key']} is to have policy {name}, which is to be absent: "
                    f"drop one of the two"
                )
            if name not in made and name not in server.policies:
                raise ProvisionError(
                    f"user {user['access_key']} is to have policy {name!r}, which neither the "
                    f"server nor this call has: correct the name, or add it to policies"
                )
    user_items = [
        *(plan_user(server, each) for each in users if each["state"] == "present"),
        *(
            plan_user_removal(server, each["access_key"])
            for each in users
            if each["state"] == "absent"
        ),
    ]
    return [
        *(plan_policy(server, each) for each in policies if each["state"] == "present"),
        *(plan_bucket(server, each) for each in buckets if each["state"] == "present"),
        *user_items,
        *plan_policy_removals(server, removed, user_items),
        *(plan_bucket_removal(server, each) for each in buckets if each["state"] == "absent"),
    ]


def apply(server: Server, items: list[Item], done: list[Attributes]) -> None:
    """Run every step and note it in `done` once it is made.

    Raises ProvisionError at the first fault, with what was written before and what was left.
    """
    for position, item in enumerate(items):
        result = outcome(item, [])
        done.append(result)
        for step in item.steps:
            try:
                server.ask(f"get {item.kind} {item.name} {step.action}", step.run)
            except ProvisionError as error:
                written = [
                    f"{each['kind']} {each['name']} {', '.join(each['changes'])}"
                    for each in done
                    if each["changes"]
                ]
                left = [f"{each.kind} {each.name}" for each in items[position + 1 :] if each.steps]
                raise ProvisionError(
                    f"{error}; written before: {'; '.join(written) or 'nothing'}; "
                    f"not tried: {', '.join(left) or 'nothing'}; correct it and run again, "
                    f"what is written stays"
                ) from error
            result["changes"].append(step.action)
            result["changed"] = True


def outcome(item: Item, changes: list[str]) -> Attributes:
    """Return the `results` entry of an item."""
    return {"kind": item.kind, "name": item.name, "changed": bool(changes), "changes": changes}


def difference(items: list[Item]) -> dict[str, str]:
    """Return the changed items before and after, as text for Ansible's diff."""
    changed = [item for item in items if item.steps]
    sides = {
        "before": {f"{item.kind} {item.name}": item.before for item in changed if item.before},
        "after": {f"{item.kind} {item.name}": item.after for item in changed if item.after},
    }
    return {
        side: json.dumps(state, indent=2, sort_keys=True) + "\n" if state else ""
        for side, state in sides.items()
    }


def provision(module: ProvisionModule, done: list[Attributes]) -> list[Item]:
    """Check, plan and, but for check mode, write; return the plan and note results in `done`."""
    params = module.params
    if IMPORT_ERROR:
        raise ProvisionError(
            f"the Python package minio cannot be imported by {sys.executable} ({IMPORT_ERROR}): "
            f"install minio 7.2.20 there, or set ansible_python_interpreter to one that has it"
        )
    if "@" in params["endpoint"]:
        module.no_log_values.add(params["endpoint"])
    endpoint = parse_endpoint(params["endpoint"], params["secure"], params["ca_file"])
    root = read_key("access_key", params["access_key"], params["access_key_file"])
    secret = read_key("secret_key", params["secret_key"], params["secret_key_file"])
    module.no_log_values.update((root, secret))
    check_input(params, root)
    server = Server(endpoint, root, secret)
    server.wait(params["wait"])
    items = plan(server, params)
    if module.check_mode:
        done += [outcome(item, [step.action for step in item.steps]) for item in items]
    else:
        apply(server, items, done)
    return items


def main() -> None:
    """Run the module."""
    module = ProvisionModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("access_key", "access_key_file"), ("secret_key", "secret_key_file")],
        required_one_of=[("access_key", "access_key_file"), ("secret_key", "secret_key_file")],
    )
    done: list[Attributes] = []
    try:
        items = provision(module, done)
    except ProvisionError as error:
        changed = any(result["changed"] for result in done)
        module.fail_json(msg=str(error), changed=changed, results=done)
    changed = any(item.steps for item in items)
    diff = {"diff": difference(items)} if module._diff and changed else {}
    module.exit_json(changed=changed, results=done, **diff)


if __name__ == "__main__":
    main()
