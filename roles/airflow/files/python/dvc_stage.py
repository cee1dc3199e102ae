"""An operator that runs a stage, or all, of a project on the platform's DVC runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.exceptions import AirflowException
from airflow.sdk import BaseOperator

from runner_api import Run, Runner, RunnerError, Try


class DvcStageOperator(BaseOperator):  # type: ignore[misc]  # Airflow is in its own environment
    """Run one stage of a project, or without a stage all of it, then push, record and register.

    The runner does the work, in the project's own container; this task asks for it, has its log
    and its result (an XCom: number, metrics, MLflow runs, the outputs' md5), and ends it where the
    task is ended. A later try, as after a restart of the scheduler, follows what an earlier one
    asked for, unless that failed; a task that is cleared asks anew.

    Args:
        project: name in dvc_runner_projects.
        stage: as DVC calls it. Nothing is pushed or recorded until a task without one.
        parameters: as `dvc exp run --set-param` takes them; the same for all stages of one run.
        pipeline: the one dvc.yaml, where not all are wanted.
        force: run what is up to date, too.

    Raises:
        AirflowException: it was refused, failed or was cancelled, in the runner's own words.
    """

    template_fields: Sequence[str] = ("project", "stage", "parameters", "pipeline")
    ui_color = "#e7f5ff"

    def __init__(
        self,
        *,
        project: str,
        stage: str = "",
        parameters: Sequence[str] | str = (),
        pipeline: str = "",
        force: bool = False,
        **kwargs: Any,  # noqa: ANN401 - Airflow's own
    ) -> None:
        """Keep what to ask for."""
        super().__init__(**kwargs)
        self.project, self.stage, self.pipeline = project, stage, pipeline
        self.parameters, self.force = parameters, force
        self._run: Run | None = None

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's own
        """Ask, follow and return the result."""
        ti = context["ti"]
        # clearing a task counts in its DAG's run, unless that is not reset, and gives more tries,
        # unless the task runs and its scheduler goes before it ended; nothing else does either
        cleared = f"{ti.max_tries} {context['dag_run'].clear_number}"
        one = Try(str(ti.id), cleared, context["task_state_store"])
        try:
            run = Runner.here().submit_once(str(self.project), one, self.asked())
            self._run = run
            self.log.info("Asked the runner of %s: request %s", self.project, run.name)
            for line in run.lines():
                self.log.info("%s", line)
            return run.result()
        except RunnerError as error:
            raise AirflowException(str(error)) from None

    def asked(self) -> dict[str, Any]:
        """Return what the runner is asked for.

        Raises:
            RunnerError: the parameters are one text, which would be taken apart.
        """
        if isinstance(self.parameters, str):
            raise RunnerError(
                f"parameters is {self.parameters!r}: give a list; where it is a template, give its "
                "DAG render_template_as_native_obj=True."
            )
        # as a template a name of digits has become a number
        said = {"stage": str(self.stage), "pipeline": str(self.pipeline)}
        given = {name: value for name, value in said.items() if value}
        return {"set": list(self.parameters), "force": self.force, **given}

    def on_kill(self) -> None:
        """End the run where the task is ended."""
        if not self._run:
            return
        try:
            self._run.hasty().cancel()
        except RunnerError as error:
            self.log.warning("The run may go on: %s", error)
