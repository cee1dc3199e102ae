"""A DAG for each entry of /config/projects.json, which is written from the inventory."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param

from dvc_stage import DvcStageOperator

GIVEN = json.loads(Path("/config/projects.json").read_text(encoding="utf-8"))
# what a run may be given in the page or by the API
PARAMETERS = Param([], type="array", items={"type": "string"}, description="such as train.lr=0.1")
END = "push_and_record"


def when(schedule: str) -> CronTriggerTimetable | None:
    """Return the times of a DAG; None where it runs when it is asked to."""
    return CronTriggerTimetable(schedule, timezone=GIVEN["timezone"]) if schedule else None


def made(name: str, said: dict[str, Any]) -> DAG:
    """Return the DAG of an entry: a task a stage in the order of their graph, then the end."""
    stages = said["stages"]
    with DAG(
        name,
        description=said["description"],
        # without a date to start at, the first run is at the next of its times
        schedule=when(said["schedule"]),
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
    # one that cannot be takes none of the others with it; `make verify` misses it by name
    try:
        globals()[f"dag_{each}"] = made(each, entry)
    except Exception:
        logging.getLogger(__name__).exception("There is no DAG %s", each)
