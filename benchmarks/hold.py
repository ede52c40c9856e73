"""Turn the waiting task instances of a run into deferred instances, as if each had just deferred on a worker.

A thousand real deferrals would start a thousand worker processes, which keeps the machine busy for minutes. The rows in
the database are the same. Run it by ``python -m benchmarks.hold RUN_ID CLASS_PATH < KWARGS`` in the environment of that
Airflow. KWARGS is a JSON list with the kwargs of each trigger (``moment``: seconds since 1970). Without arguments it
prints how many triggers are assigned to a triggerer.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def main() -> None:
    """Defer the instances or print the count."""
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
