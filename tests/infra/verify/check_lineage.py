"""The chain from the data's md5 to the registered model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from platform_verify.declared import Service
from platform_verify.facts import FactError, Facts

Verdict = Callable[[Iterable[str], str], None]

TOLERANCE = 1e-6  # metrics are written with six decimals
PIPELINE = "run `make pipeline`"
AGAIN = "run `make pipeline FORCE=yes`: every stage runs, and the model is registered again"


@pytest.fixture
def chain(facts: Facts, service: Callable[[str], Service]) -> Mapping[str, Any]:
    """The workspace of the last run."""
    service("dvc-runner")
    found: Mapping[str, Any] = facts.of("runner", "workspace")
    if not found["lock"]:
        raise FactError("there is no dvc.lock: the pipeline has not run here", PIPELINE)
    return found


@pytest.fixture
def tracked(chain: Mapping[str, Any], service: Callable[[str], Service]) -> Mapping[str, Any]:
    """The same of a project that registers its model; how another one tracks is not known here."""
    service("mlflow")
    if not chain["registered_model"]:
        pytest.skip("config.yaml of the project names no mlflow.registered_model")
    return chain


@pytest.mark.promise("The pipeline has run to its end", hint=PIPELINE)
def test_the_last_pipeline_run_ended_well_and_its_lock_is_recorded(
    chain: Mapping[str, Any], verdict: Verdict
) -> None:
    wrong = []
    if chain["running"]:
        wrong.append("a run is under way: wait for its end")
    elif not chain["done"]:
        wrong.append("the last run did not end well")
    elif chain["changed"]:
        wrong.append(f"the workspace was changed after it: {', '.join(chain['changed'][:3])}")
    commit = chain["source_commit"]
    known = "of no commit" if commit == "none" else f"of commit {commit[:12]}"
    dirty = ", with changes that are not committed" if chain["dirty"] else ""
    verdict(wrong, f"{len(chain['outputs'])} outputs {known}{dirty}")


@pytest.mark.promise(
    "What dvc.lock names lies in the bucket",
    hint="remove the object that is wrong, then `make pipeline` pushes what the bucket lacks",
)
def test_every_md5_in_the_lock_is_an_object_whose_bytes_hash_to_it(
    chain: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    rows = facts.of("runner", "objects")
    wrong = []
    for row in rows:
        what = f"{row['bucket']}/{row['key']} ({row['path']})"
        if "missing" in row:
            wrong.append(f"{what} is not there: {row['missing']}")
        elif row["found"] != row["md5"]:
            wrong.append(f"{what} hashes to {row['found']}")
    size = sum(row["size"] for row in rows) / 1e6
    raw = chain["outputs"].get(chain["paths"].get("raw"))
    verdict(wrong, f"{len(rows)} objects, {size:.1f} MB{f'; data md5 {raw}' if raw else ''}")


@pytest.mark.promise(
    "A fresh clone can pull everything",
    hint="`make pipeline` pushes what the bucket lacks; an object with other bytes must be removed"
    " first",
)
def test_a_fresh_clone_with_an_empty_cache_pulls_every_output(
    chain: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    pulled, wanted = facts.of("clone", "pull"), len(chain["outputs"])
    wrong = [f"{path} did not come" for path in pulled["missing"]]
    wrong += [f"{path} came with another md5" for path in pulled["wrong"]]
    if pulled["outputs"] != wanted:
        wrong.append(f"the clone's dvc.lock names {pulled['outputs']} outputs, not {wanted}")
    verdict(wrong, f"{pulled['outputs']} outputs into an empty cache, each with its md5")


def misses(chain: Mapping[str, Any], run: Mapping[str, Any]) -> Iterable[str]:
    """Say where a tracked run does not tell what the workspace holds."""
    tags, out, paths = run["tags"], chain["outputs"], chain["paths"]
    wanted = {
        "data_md5": out.get(paths["raw"]),
        "model_md5": out.get(paths["model"]),
        "data_source": chain["metrics"].get("data_source"),
        "platform": chain["platform"],
    }
    for key, value in wanted.items():
        if not value or tags.get(key) != value:
            yield f"tag {key} is {tags.get(key)}, not {value}"
    if tags.get("git_commit") not in chain["ran_at"]:
        known = " or ".join(chain["ran_at"]) or "no known commit"
        yield f"tag git_commit is {tags.get('git_commit')}, these outputs were made at {known}"
    if run["status"] != "FINISHED":
        yield f"its status is {run['status']}"
    for part in ("train", "test"):
        for name, value in chain["metrics"][part].items():
            logged = run["metrics"].get(f"{part}_{name}")
            if logged is None or abs(logged - value) > TOLERANCE:
                yield f"metric {part}_{name} is {logged}, the metrics file says {value}"


@pytest.mark.promise("The MLflow run names its data and commit", hint=AGAIN)
def test_the_tracked_run_carries_md5_commit_platform_and_the_metrics_of_the_file(
    tracked: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    run = facts.of("runner", "run")
    name = f"run {run['run_id']}"
    verdict(
        [f"{name}: {sentence}" for sentence in misses(tracked, run)],
        f"{name}: data md5 {run['tags'].get('data_md5')},"
        f" commit {str(run['tags'].get('git_commit'))[:12]}",
    )


@pytest.mark.promise(
    "The run's artifacts lie in the bucket",
    hint="bring an object's older version back (versioning is on), or `make pipeline FORCE=yes`",
)
def test_artifacts_are_in_the_bucket_and_the_model_has_the_bytes_of_the_pipelines(
    tracked: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    run, stored = facts.of("runner", "run"), facts.of("mlflow", "artifacts")
    bucket, places = stored["bucket"], list(stored["paths"].items())
    wrong = [f"{bucket}/{path} is empty" for path, objects in places if not objects]
    if len(places) == 1:
        wrong.append(f"run {run['run_id']} registered no model")
    path, own = places[0]
    for key in ("model", "metrics"):
        file = tracked["paths"][key]
        name, wanted = f"pipeline/{file.rpartition('/')[2]}", tracked["outputs"][file]
        seen = own.get(name, {}).get("md5", "not there")
        if seen != wanted:
            wrong.append(f"{bucket}/{path}/{name} is {seen}, dvc.lock says {wanted}")
    model = tracked["outputs"][tracked["paths"]["model"]]
    count = sum(len(objects) for _, objects in places)
    verdict(wrong, f"{count} objects in {bucket}; model md5 {model}")


@pytest.mark.promise("The registered model predicts as the pipeline's", hint=AGAIN)
def test_the_candidate_is_of_the_last_run_and_predicts_the_same_as_the_model_file(
    tracked: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    run, name = facts.of("runner", "run"), tracked["registered_model"]
    aliases, versions = run["aliases"], run["versions"]
    wrong = [
        f"model {name} has no alias {alias}"
        for alias in ("candidate", "champion")
        if alias not in aliases
    ]
    if not wrong and aliases["candidate"] not in versions:
        wrong.append(f"candidate is version {aliases['candidate']}, the run's is {versions}")
    verdict(wrong, "")
    same = facts.of("model", "predictions")
    model = tracked["paths"]["model"]
    if same["own_md5"] != tracked["outputs"][model]:
        wrong.append(f"{model} in the workspace hashes to {same['own_md5']}, not as in dvc.lock")
    if not same["rows"] or not same["equal"]:
        wrong.append(f"{same['rows']} predictions differ by up to {same['largest_difference']:g}")
    verdict(
        wrong,
        f"{name} version {aliases['candidate']} (champion: {aliases['champion']}),"
        f" {same['rows']} predictions equal",
    )
