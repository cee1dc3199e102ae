"""Make buckets, policies and users of a MinIO server as declared, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: minio_provision
short_description: Make buckets, policies and users of a MinIO server as declared
description:
  - Reads what the server has, compares it with what is declared, and writes only the differences,
    policies first, then buckets, then users. All is read before the first write.
  - What is listed is made exactly so, with the defaults of what an entry leaves out. An item that
    is not listed is left alone; nothing is removed.
  - Returns C(changes), what was written by item, in the order of work; in check mode what would be.
options:
  endpoint: {type: str, required: true, description: "Address of the S3 API, C(host:port)."}
  access_key_file: {type: path, required: true, description: File with the root user's access key.}
  secret_key_file: {type: path, required: true, description: File with its secret key.}
  wait: {type: int, default: 30, description: Seconds to wait for a server that is not ready yet.}
  buckets:
    description: Buckets.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {type: str, required: true, description: Name of the bucket.}
      versioning: {type: bool, default: false, description: "Off, it is suspended where it was on."}
      quota: {type: int, default: 0, description: Hard limit in bytes; 0 is none.}
      lifecycle:
        description: All lifecycle rules. MinIO drops an abort of unfinished uploads without a word.
        type: list
        elements: dict
        default: []
        suboptions:
          id: {type: str, required: true, description: Name of the rule.}
          prefix: {type: str, default: "", description: How the keys begin that it holds for.}
          expire_days: {type: int, description: Age at which an object expires.}
          expire_noncurrent_days: {type: int, description: The same of an old version.}
          expire_delete_markers: {type: bool, default: false, description: Whether lone ones go.}
  policies:
    description: IAM policies.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {type: str, required: true, description: Name of the policy.}
      statements: {type: list, elements: dict, required: true, description: As IAM spells them.}
  users:
    description: Users. One that somebody disabled is enabled again.
    type: list
    elements: dict
    default: []
    suboptions:
      access_key: {type: str, required: true, description: Name of the user.}
      secret_key: {type: str, required: true, description: Written only where it differs.}
      policies: {type: list, elements: str, default: [], description: All but those by a group.}
requirements:
  - minio >= 7.2.20, < 8
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: Of a secret it is told only whether it changes.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from xml.etree.ElementTree import ParseError

from ansible.module_utils.basic import AnsibleModule

try:
    import urllib3
    from minio import Minio, MinioAdmin
    from minio.commonconfig import ENABLED, Filter
    from minio.credentials.providers import StaticProvider
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
Changes = dict[str, list[str]]

# Given, the SDK does not ask the server for the region before the first request to each bucket.
REGION = "us-east-1"
CONNECT_SECONDS = 5
READ_SECONDS = 30
SERVER_FAULT = 500

NEW_BUCKET: Attributes = {"versioning": False, "quota": 0, "lifecycle": []}


def entries(options: Attributes) -> Attributes:
    """Return the option that lists entries with these options."""
    return {"type": "list", "elements": "dict", "default": [], "options": options}


ARGUMENTS: dict[str, Attributes] = {
    "endpoint": {"type": "str", "required": True},
    "access_key_file": {"type": "path", "required": True, "no_log": False},
    "secret_key_file": {"type": "path", "required": True, "no_log": False},
    "wait": {"type": "int", "default": 30},
    "buckets": entries(
        {
            "name": {"type": "str", "required": True},
            "versioning": {"type": "bool", "default": False},
            "quota": {"type": "int", "default": 0},
            "lifecycle": entries(
                {
                    "id": {"type": "str", "required": True},
                    "prefix": {"type": "str", "default": ""},
                    "expire_days": {"type": "int"},
                    "expire_noncurrent_days": {"type": "int"},
                    "expire_delete_markers": {"type": "bool", "default": False},
                }
            ),
        }
    ),
    "policies": entries(
        {
            "name": {"type": "str", "required": True},
            "statements": {"type": "list", "elements": "dict", "required": True},
        }
    ),
    "users": entries(
        {
            "access_key": {"type": "str", "required": True, "no_log": False},
            "secret_key": {"type": "str", "required": True, "no_log": True},
            "policies": {"type": "list", "elements": "str", "default": []},
        }
    ),
}


class ProvisionError(Exception):
    """A fault told in one sentence: the name, the value seen, the next step."""


class Step(NamedTuple):
    """One write: the words for it, and the call that does it."""

    action: str
    run: Callable[[], object]


class Item(NamedTuple):
    """What one bucket, policy or user needs; no steps where nothing differs."""

    name: str
    before: Attributes
    after: Attributes
    steps: list[Step]


class SilentModule(AnsibleModule):  # type: ignore[misc]  # ansible-core ships no types
    """An AnsibleModule that leaves nothing in the host's log."""

    def log(self, msg: str, log_args: object = None) -> None:
        """Keep silent: the target's syslog would get a secret with a quote in it as it came."""


class Server:
    """The requests this module makes; a fault becomes a ProvisionError that names the request."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str) -> None:
        """Prepare the clients; the first request is `wait`'s."""
        self.buckets: set[str] = set()
        self.policies: dict[str, Attributes] = {}
        self.endpoint = endpoint
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._common: Attributes = {
            "endpoint": endpoint,
            "secure": False,
            "region": REGION,
            "http_client": urllib3.PoolManager(timeout=timeout, retries=False),
        }
        root = StaticProvider(access_key=access_key, secret_key=secret_key)
        self.s3 = Minio(credentials=root, **self._common)
        self.admin = MinioAdmin(credentials=root, **self._common)

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Return what `call` returns; raise ProvisionError with `what` and the server's words."""
        try:
            return call()
        except (
            MinioException,
            MinioAdminException,
            urllib3.exceptions.HTTPError,
            ParseError,
            ValueError,
        ) as error:
            raise ProvisionError(
                f"MinIO at {self.endpoint} did not {what}: {told(error)}"
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

    def bucket(self, name: str) -> Attributes:
        """Return versioning, quota and lifecycle of a bucket."""
        s3, admin = self.s3, self.admin
        reads: dict[str, Callable[[], object]] = {
            # One that was never on and one that is suspended are both off.
            "versioning": lambda: s3.get_bucket_versioning(bucket_name=name).status == ENABLED,
            "quota": lambda: json.loads(admin.bucket_quota_get(bucket=name)).get("quota", 0),
            "lifecycle": lambda: by_id(s3.get_bucket_lifecycle(bucket_name=name)),
        }
        return {
            key: self.ask(f"show the {key} of bucket {name}", read) for key, read in reads.items()
        }

    def user(self, access_key: str) -> Attributes:
        """Return status and policyName of a user, or nothing where there is none.

        One request for each user: the list of all of them is encrypted with a key that takes both
        sides 200 ms to derive.
        """
        try:
            return self.ask(
                f"show user {access_key}",
                lambda: dict(json.loads(self.admin.user_info(access_key=access_key))),
            )
        except ProvisionError as error:
            if ": XMinioAdminNoSuchUser: " in str(error):
                return {}
            raise

    def secret_holds(self, access_key: str, secret_key: str) -> bool:
        """Tell whether the secret key is the one of that enabled user, without a write.

        The signature is checked before the permission, so a denied request proves the key.
        """
        client = Minio(access_key=access_key, secret_key=secret_key, **self._common)
        try:
            self.ask(f"check the secret key of user {access_key}", client.list_buckets)
        except ProvisionError as error:
            if ": SignatureDoesNotMatch: " in str(error):
                return False
            if ": AccessDenied: " not in str(error):
                raise
        return True


def told(error: Exception) -> str:
    """Return what an exception says, without request ids and object addresses."""
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    if isinstance(error, (ParseError, ValueError)):
        return f"the answer is not MinIO's ({error}); see what runs there"
    # The SDK keeps the admin API's answer in the text.
    answer = re.search(r'"Code":"(\w+)","Message":"((?:[^"\\]|\\.)*)"', str(error))
    return f"{answer[1]}: {answer[2]}" if answer else str(error)


def passes(error: BaseException | None) -> bool:
    """Tell whether waiting may help: no connection, or a server that is not ready yet."""
    if isinstance(error, urllib3.exceptions.HTTPError):
        return True
    if isinstance(error, S3Error):
        return error.response.status >= SERVER_FAULT
    status = re.search(r"(?:Status|status code|Response code):? (\d+)", str(error))
    return status is not None and int(status[1]) >= SERVER_FAULT


def read_key(path: str) -> str:
    """Return a root key out of the file that holds it."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ProvisionError(
            f"the root user's key {path} cannot be read where the module runs ({error.strerror}): "
            f"run it where the platform mounts its secrets"
        ) from error


def lifecycle_rule(rule: Attributes) -> Rule:
    """Return the SDK's form of a declared lifecycle rule."""
    days, markers = rule["expire_days"], rule["expire_delete_markers"]
    noncurrent = rule["expire_noncurrent_days"]
    return Rule(
        status=ENABLED,
        rule_id=rule["id"],
        rule_filter=Filter(prefix=rule["prefix"]),
        expiration=Expiration(days=days, expired_object_delete_marker=markers or None)
        if days or markers
        else None,
        noncurrent_version_expiration=NoncurrentVersionExpiration(noncurrent_days=noncurrent)
        if noncurrent
        else None,
    )


def plain(part: object) -> object:
    """Return a part of the SDK's lifecycle rules as plain data, without what it leaves empty."""
    if is_dataclass(part):
        part = vars(part)
    if not isinstance(part, dict):
        return part
    return {key: value for key, each in part.items() if (value := plain(each))}


def by_id(config: LifecycleConfig | None) -> list[object]:
    """Return lifecycle rules in a form that is equal where the meaning is equal."""
    rules = config.rules if config else []
    return [plain(rule) for rule in sorted(rules, key=lambda rule: str(rule.rule_id))]


def canonical(statements: list[Attributes]) -> list[Attributes]:
    """Return a policy's statements in a form that is equal where the meaning is equal.

    MinIO keeps sets: it drops repeated statements and returns actions and resources in any order.
    A statement's Sid is a mere name.
    """
    unique = {}
    for statement in statements:
        plain = {
            key: sorted(set(value)) if isinstance(value, list) else value
            for key, value in statement.items()
            if key != "Sid"
        }
        unique[json.dumps(plain, sort_keys=True)] = plain
    return [unique[key] for key in sorted(unique)]


def plan_policy(server: Server, policy: Attributes) -> Item:
    """Return what a policy needs."""
    name, statements = policy["name"], policy["statements"]
    found = server.policies.get(name)
    before = {} if found is None else {"statements": canonical(found.get("Statement") or [])}
    after = {"statements": canonical(statements)}
    steps = []
    if before != after:
        document = {"Version": "2012-10-17", "Statement": statements}
        write = partial(server.admin.policy_add, policy_name=name, policy=document)
        steps.append(Step("created" if found is None else "statements changed", write))
    return Item(f"policy {name}", before, after, steps)


def plan_bucket(server: Server, bucket: Attributes) -> Item:
    """Return what a bucket needs."""
    name, s3, admin = bucket["name"], server.s3, server.admin
    on, size = bucket["versioning"], bucket["quota"]
    rules = LifecycleConfig(rules=[lifecycle_rule(rule) for rule in bucket["lifecycle"]])
    versioning = VersioningConfig(status=ENABLED if on else SUSPENDED)
    writes = {
        "versioning": Step(
            "versioning on" if on else "versioning suspended",
            partial(s3.set_bucket_versioning, bucket_name=name, config=versioning),
        ),
        "quota": Step(f"quota {size}", partial(admin.bucket_quota_set, bucket=name, size=size)),
        "lifecycle": Step(
            "lifecycle set", partial(s3.set_bucket_lifecycle, bucket_name=name, config=rules)
        )
        if rules.rules
        else Step("lifecycle removed", partial(s3.delete_bucket_lifecycle, bucket_name=name)),
    }
    before = server.bucket(name) if name in server.buckets else {}
    after = {"versioning": on, "quota": size, "lifecycle": by_id(rules)}
    steps = [] if before else [Step("created", partial(s3.make_bucket, bucket_name=name))]
    now = before or NEW_BUCKET
    steps += [step for key, step in writes.items() if now[key] != after[key]]
    return Item(f"bucket {name}", before, after, steps)


def plan_user(server: Server, user: Attributes) -> Item:
    """Return what a user needs."""
    name, secret = user["access_key"], user["secret_key"]
    admin, found = server.admin, server.user(name)
    status = found.get("status")
    have = sorted(filter(None, found.get("policyName", "").split(",")))
    want = sorted(set(user["policies"]))
    # MinIO does not check the key of a disabled user.
    same = status == "enabled" and server.secret_holds(name, secret)
    steps = []
    if not same:
        words = {None: "created", "enabled": "secret key changed", "disabled": "enabled"}
        # This enables the user, too.
        write = partial(admin.user_add, access_key=name, secret_key=secret)
        steps.append(Step(words[status], write))
    if want != have:
        # One cheap write for the whole set; attaching and detaching take 300 ms each.
        write = partial(admin.policy_set, policy_name=",".join(want), user=name)
        steps.append(Step(f"policies {', '.join(want) or 'none'}", write))
    before = {"status": status, "secret": "unchanged", "policies": have} if found else {}
    after = {"status": "enabled", "secret": "unchanged" if same else "changed", "policies": want}
    return Item(f"user {name}", before, after, steps)


def plan(server: Server, params: Attributes) -> list[Item]:
    """Return the items that need something, in the order of work; nothing is written."""
    items = [
        *(plan_policy(server, each) for each in params["policies"]),
        *(plan_bucket(server, each) for each in params["buckets"]),
        *(plan_user(server, each) for each in params["users"]),
    ]
    return [item for item in items if item.steps]


def apply(server: Server, items: list[Item], changes: Changes) -> None:
    """Run every step and note it in `changes` once it is made.

    Raises ProvisionError at the first fault, with what was written before and what was left.
    """
    for position, item in enumerate(items):
        for step in item.steps:
            try:
                server.ask(f"get {item.name} {step.action}", step.run)
            except ProvisionError as error:
                written = [f"{name} {', '.join(actions)}" for name, actions in changes.items()]
                left = [each.name for each in items[position + 1 :]]
                raise ProvisionError(
                    f"{error}; written before: {'; '.join(written) or 'nothing'}; "
                    f"not tried: {', '.join(left) or 'nothing'}; correct it and run again, "
                    f"what is written stays"
                ) from error
            changes.setdefault(item.name, []).append(step.action)


def provision(module: AnsibleModule, changes: Changes) -> list[Item]:
    """Plan, and write but for check mode; return what differs, with `changes` filled in."""
    params = module.params
    if IMPORT_ERROR:
        raise ProvisionError(
            f"the Python package minio cannot be imported by {sys.executable} ({IMPORT_ERROR}): "
            "install minio 7.2.20 there, or name a Python that has it with "
            "ansible_python_interpreter; for a platform of this project set minio_exec to "
            "/opt/<platform>/bin/minio-admin"
        )
    root, secret = (read_key(params[key]) for key in ("access_key_file", "secret_key_file"))
    module.no_log_values.update((root, secret))
    server = Server(params["endpoint"], root, secret)
    server.wait(params["wait"])
    items = plan(server, params)
    if module.check_mode:
        changes.update({item.name: [step.action for step in item.steps] for item in items})
    else:
        apply(server, items, changes)
    return items


def main() -> None:
    """Run the module."""
    module = SilentModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    changes: Changes = {}
    try:
        items = provision(module, changes)
    except ProvisionError as error:
        module.fail_json(msg=str(error), changed=bool(changes), changes=changes)
    answer: Attributes = {"changed": bool(items), "changes": changes}
    if items and module._diff:
        answer["diff"] = {
            "before": {item.name: item.before for item in items},
            "after": {item.name: item.after for item in items},
        }
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
