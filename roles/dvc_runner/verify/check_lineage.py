"""The chain from the data's md5 to the registered model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import FactError, Facts

Verdict = Callable[[Iterable[str], str], None]

TOLERANCE = 1e-6  # metrics are written with six decimals
EACH = "pipelines"
PIPELINE = "run `make pipeline`"
ENDS = "`make pipeline`, or a request to the API without `stage`, ends it"
AGAIN = "run `make pipeline FORCE=yes`: every stage runs, and the model is registered again"


@pytest.fixture
def chain(
    each: str,
    facts: Facts,
    service: Callable[[str], Service],
    tell_metrics: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    """The workspace of a project's last run."""
    service(each)
    found: Mapping[str, Any] = facts.of("runner", "workspace", service=each)
    if found["unfinished"]:
        if found["running"]:
            raise FactError("a run is under way", "wait for its end (`make status` tells)")
        raise FactError("the last run is unfinished: not all of its stages are done", ENDS)
    if found["metrics"]:
        tell_metrics(found["metrics"])
    if not found["lock"]:
        raise FactError("there is no dvc.lock: the pipeline has not run here", PIPELINE)
    return found


@pytest.fixture
def tracked(chain: Mapping[str, Any], service: Callable[[str], Service]) -> Mapping[str, Any]:
    """The same of a project that registers its model; how another one tracks is not known here."""
    service("mlflow")
    if not chain["registered_model"]:
        pytest.skip("no config.yaml of the project names mlflow.registered_model")
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
    each: str, chain: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    found = facts.of("runner", "objects", "minio", service=each)
    wrong = []
    for row in found["wrong"]:
        what = f"{row['bucket']}/{row['key']} ({row['path']})"
        if "missing" in row:
            wrong.append(f"{what} is not there: {row['missing']}")
        else:
            wrong.append(f"{what} hashes to {row['found']}")
    raw = chain["outputs"].get(chain["paths"].get("raw"))
    size = found["size"] / 1e6
    verdict(wrong, f"{found['objects']} objects, {size:.1f} MB{f'; data md5 {raw}' if raw else ''}")


@pytest.mark.promise(
    "A fresh clone can pull everything",
    hint="`make pipeline` pushes what the bucket lacks; an object with other bytes must be removed"
    " first",
)
def test_a_fresh_clone_with_an_empty_cache_pulls_every_output(
    each: str, chain: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    pulled, wanted = facts.of("clone", "pull", "minio", service=each), len(chain["stored"])
    wrong = [f"{path} did not come" for path in pulled["missing"]]
    wrong += [f"{path} came with another md5" for path in pulled["wrong"]]
    if pulled["outputs"] != wanted:
        wrong.append(f"{pulled['outputs']} outputs were pulled, not {wanted}")
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


def untold(chain: Mapping[str, Any], run: Mapping[str, Any]) -> Iterable[str]:
    """Say what an MLflow run does not tell of the pipeline run that it is of."""
    if run["status"] != "FINISHED":
        yield f"run {run['run_id']} is {run['status']}"
    for key in ("project", "platform"):
        if run["tags"].get(key) != chain[key]:
            yield f"tag {key} of run {run['run_id']} is {run['tags'].get(key)}, not {chain[key]}"
    if not run["tags"].get("git_commit"):
        yield f"run {run['run_id']} names no commit"


@pytest.mark.promise("MLflow has the run, with its lineage", hint=AGAIN)
def test_every_project_has_a_run_in_mlflow_that_names_it_and_its_commit(
    each: str,
    chain: Mapping[str, Any],
    facts: Facts,
    service: Callable[[str], Service],
    verdict: Verdict,
) -> None:
    service("mlflow")
    found = facts.of("runner", "lineage", "mlflow", service=each)
    wrong = [sentence for run in found for sentence in untold(chain, run)]
    if not found:
        wrong.append("no MLflow run is noted of the last pipeline run")
    verdict(
        wrong,
        f"{len(found)} of experiment {chain['project']}: {found[-1]['run_id'] if found else ''}",
    )


@pytest.mark.promise("The MLflow run names its data and commit", hint=AGAIN)
def test_the_tracked_run_carries_md5_commit_platform_and_the_metrics_of_the_file(
    each: str, tracked: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    run = facts.of("runner", "run", "mlflow", service=each)
    name = f"run {run['run_id']}"
    verdict(
        [f"{name}: {sentence}" for sentence in misses(tracked, run)],
        f"{name}: data md5 {run['tags'].get('data_md5')},"
        f" commit {str(run['tags'].get('git_commit'))[:12]}",
    )


@pytest.mark.promise(
    "The run's artifacts lie in the bucket",
    hint="`make pipeline FORCE=yes` makes them again; an object's older version may still be there "
    "to bring back (minio_noncurrent_days)",
)
def test_artifacts_are_in_the_bucket_and_the_model_has_the_bytes_of_the_pipelines(
    each: str, tracked: Mapping[str, Any], facts: Facts, verdict: Verdict
) -> None:
    run = facts.of("runner", "run", "mlflow", service=each)
    addresses = [run["artifact_uri"], *run["sources"]]
    paths = [address.partition(":")[2].lstrip("/") for address in addresses]
    stored = facts.answer("artifacts", "artifacts", {"paths": paths}, "minio")
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
def test_the_candidate_is_of_the_last_run_and_predicts_the_same_outside_as_the_model_file(
    each: str, tracked: Mapping[str, Any], platform: Platform, facts: Facts, verdict: Verdict
) -> None:
    run, name = facts.of("runner", "run", "mlflow", service=each), tracked["registered_model"]
    aliases, versions = run["aliases"], run["versions"]
    wrong = [
        f"model {name} has no alias {alias}"
        for alias in ("candidate", "champion")
        if alias not in aliases
    ]
    own = not wrong and aliases["candidate"] in versions
    if not wrong and not own and not (versions and run["candidate_known"]):
        wrong.append(f"candidate is version {aliases['candidate']}, the run's is {versions}")
    verdict(wrong, "")
    of_pipeline = facts.of("model", "predictions", service=each)
    model, address = tracked["paths"]["model"], platform.promised["tracking_uri"]
    if of_pipeline["own_md5"] != tracked["outputs"][model]:
        wrong.append(
            f"{model} in the workspace hashes to {of_pipeline['own_md5']}, not as in dvc.lock"
        )
    version = aliases["candidate"] if own else versions[0]
    model_uri = f"models:/{name}@candidate" if own else f"models:/{name}/{version}"
    # as a client does that knows one address, and no key of the storage behind it
    given = {"tracking_uri": address, "model": model_uri, "rows": of_pipeline["rows"]}
    server = platform.services.get("mlflow")
    if server and not server.ports:
        # what is in front of it asks for a password, and has a check of its own
        address = "http://127.0.0.1:5000"
        given |= {"tracking_uri": address, "beside": server.container}
    predicted = facts.answer("client", "predictions", given, "mlflow", "minio", service=each)
    differ = sum(
        one != other for one, other in zip(of_pipeline["predicted"], predicted, strict=True)
    )
    if differ or not predicted:
        wrong.append(f"{differ} of {len(predicted)} predictions differ")
    verdict(
        wrong,
        f"{name} version {version} (champion: {aliases['champion']}) loaded from {address},"
        f" {len(predicted)} predictions equal",
    )
