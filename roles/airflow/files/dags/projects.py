"""A DAG for each entry of /config/projects.json, which is written from the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG, Param

from dvc_stage import DvcStageOperator

GIVEN = json.loads(Path("/config/projects.json").read_text(encoding="utf-8"))
# what a run may be given in the page or by the API
PARAMETERS = Param([], type="array", items={"type": "string"}, description="such as train.lr=0.1")
END = "push_and_record"


def made(name: str, said: dict[str, Any]) -> DAG:
    """Return the DAG of an entry: a task a stage in the order of their graph, then the end."""
    stages = said["stages"]
    with DAG(
        name,
        description=said["description"],
        schedule=said["schedule"] or None,
        start_date=pendulum.datetime(2026, 1, 1, tz=GIVEN["timezone"]),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        render_template_as_native_obj=True,
        tags=["platform", said["project"]],
        params={"set": PARAMETERS},
    ) as dag:
        words = {"project": said["project"], "parameters": "{{ params.set }}"}
        tasks = {stage: DvcStageOperator(task_id=stage, stage=stage, **words) for stage in stages}
        end = DvcStageOperator(task_id=END if stages else "run", **words)
        for stage, before in stages.items():
            tasks[stage].set_upstream([tasks[each] for each in before])
        end.set_upstream([*tasks.values()])
    return dag


for each, entry in GIVEN["dags"].items():
    globals()[each] = made(each, entry)
