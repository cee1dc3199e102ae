"""Make what the pipeline needs: directories, DVC, the bucket and the remote. Safe to run again.

The store's address and keys are read from the environment (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY), where `eval "$(make -s env)"` puts them; no file gets them.
"""

import configparser
import subprocess
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from iris.settings import Settings, SettingsError, load

ROOT = Path(__file__).parent
REMOTE = "platform"
LOCAL = ROOT / ".dvc/config.local"


class SetUpError(Exception):
    """What is in the way, and the next step, in one sentence."""


def directories(settings: Settings) -> list[str]:
    """Make the directories of all files of the pipeline; returns those that were not there."""
    wanted = {ROOT / path for path in settings.paths.model_dump().values()}
    missing = sorted({path.parent for path in wanted if not path.parent.is_dir()})
    for path in missing:
        path.mkdir(parents=True, exist_ok=True)
    return [f"made {path.relative_to(ROOT)}/" for path in missing]


def dvc(*words: str) -> None:
    """Run DVC in the project.

    Raises:
        SetUpError: it is not installed, or fails.
    """
    try:
        subprocess.run(["dvc", *words], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603, S607 - own words; DVC from PATH
    except FileNotFoundError:
        raise SetUpError(
            "dvc is not in PATH: install it, such as with `pip install dvc[s3]`."
        ) from None
    except subprocess.CalledProcessError as error:
        raise SetUpError(
            f"dvc {' '.join(words)} failed: {' '.join(error.stderr.split())}"
        ) from None


def repository() -> list[str]:
    """Make this a DVC project where it is none, below a git repository too."""
    if (ROOT / ".dvc/config").is_file():
        return []
    # a directory of a larger repository, a repository of its own, or neither
    top = subprocess.run(
        ["git", "rev-parse", "--show-prefix"],  # noqa: S607 - git from PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    kind = "--no-scm" if top.returncode else "--subdir" if top.stdout.strip() else "--quiet"
    dvc("init", kind)
    return ["initialised DVC"]


def bucket(settings: Settings) -> list[str]:
    """Make the bucket where it is not there.

    Raises:
        SetUpError: the store does not answer, or refuses.
    """
    name = settings.remote.bucket
    try:
        client = boto3.client("s3")
        # a list, for a user of that bucket alone may not ask which buckets there are
        client.list_objects_v2(Bucket=name, MaxKeys=1)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise SetUpError(f"Bucket {name} refuses: {error}: see the keys in AWS_*.") from None
        try:
            client.create_bucket(Bucket=name)
        except ClientError as refused:
            raise SetUpError(
                f"Bucket {name} is not there and cannot be made ({refused}): ask its owner."
            ) from None
        return [f"made bucket {name}"]
    except (BotoCoreError, ValueError) as error:
        raise SetUpError(
            f'The store cannot be asked ({error}): `eval "$(make -s env)"` says where it is.'
        ) from None
    return []


def remote(settings: Settings) -> list[str]:
    """Name the remote in the file that git ignores, as the default."""
    url = settings.remote.url
    seen = configparser.ConfigParser()
    seen.read(LOCAL)
    section = f"'remote \"{REMOTE}\"'"
    if seen.get(section, "url", fallback="") == url:
        return []
    dvc("remote", "add", "--local", "--default", "--force", REMOTE, url)
    return [f"remote {REMOTE} is {url}"]


def main() -> int:
    """Do what is missing, and say what that was."""
    try:
        settings = load(ROOT / "config/config.yaml")
        for step in (directories, lambda _: repository(), bucket, remote):
            for line in step(settings):
                print(line)
    except (SettingsError, SetUpError) as error:
        print(error, file=sys.stderr)
        return 1
    print("All is set up: run `dvc repro`, then `dvc push`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
