"""Make waiting task instances of a run deferred ones, as if each had just deferred on a worker.

A thousand real deferrals start a thousand worker processes: minutes of both cores before anything can be measured. What
the triggerer finds in the database is the same. ``python -m benchmarks.hold RUN_ID CLASS_PATH < KWARGS``, where KWARGS
is a JSON list with the kwargs of each trigger (``moment``: seconds since 1970); without arguments it prints how many
triggers a triggerer has. Runs in the environment of the Airflow in question.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def main() -> None:
    """Do what the arguments say."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        if len(sys.argv) == 1:
            print(session.scalar(select(func.count()).select_from(Trigger).where(Trigger.triggerer_id.is_not(None))))
            return
        run_id, class_path = sys.argv[1:]
        ours = select(TaskInstance).where(TaskInstance.run_id == run_id).order_by(TaskInstance.map_index)
        for instance, kwargs in zip(session.scalars(ours).all(), json.load(sys.stdin), strict=True):
            if "moment" in kwargs:
                kwargs["moment"] = datetime.fromtimestamp(kwargs["moment"], UTC)
            trigger = Trigger(classpath=class_path, kwargs=kwargs)
            session.add(trigger)
            session.flush()
            instance.state = "deferred"
            instance.trigger_id = trigger.id
            instance.next_method = "execute_complete"
            instance.next_kwargs = {}


if __name__ == "__main__":
    main()
