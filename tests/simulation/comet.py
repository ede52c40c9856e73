"""CometAPI in a simulated world: predictions, the key, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.api.response import Response
from tests.simulation.answers import BOUGHT_AGAIN, ENDS, GETS, NAMELESS, POSTS, Answer
from tests.simulation.triggerer import TRIGGER

if TYPE_CHECKING:
    from airflow_provider_comet.api.config import Config
    from tests.simulation.database import TaskInstance
    from tests.simulation.process import Process
    from tests.simulation.world import World


@dataclass
class Prediction:
    """An accepted create.

    :param number: 1 for the first of the story; it is part of the id.
    :param owner: the task instance that sent it, and the input's place in a batch.
    :ivar is_named: whether an answer has named the id.
    :ivar told_at: when the last poll was told how it ended; ``None``: it was not.
    :ivar process: which sent it.
    :ivar faults: when a poll of it was answered oddly, and how.
    :ivar is_late: whether it was bought by an attempt that had been replaced, beside that of its successor.
    :ivar is_removed: whether a poll has said that its output is gone.
    """

    number: int
    owner: str
    input: dict[str, Any]
    created_at: float
    seconds: float
    end: str = "succeeded"
    id: str = ""
    is_named: bool = False
    told_at: float | None = None
    process: Process | None = None
    faults: list[tuple[float, str]] = field(default_factory=list)
    is_removed: bool = False
    is_late: bool = False

    @property
    def ended_at(self) -> float:
        return self.created_at + self.seconds

    @property
    def is_bad(self) -> bool:
        return self.end != "succeeded" or self.is_removed

    @property
    def may_be_bought_again(self) -> bool:
        return self.end in BOUGHT_AGAIN

    def content(self) -> bytes:
        """What its only file holds."""
        return b"\x89PNG\r\n\x1a\n" + f"{self.id} {json.dumps(self.input, sort_keys=True)}".encode()


class CometAPI:
    """The service. Whatever it does is in the story, or is what it should do.

    :ivar predictions: by id.
    :ivar key: the key that is valid now.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.predictions: dict[str, Prediction] = {}
        self.key = "sk-simulated-000"
        self.posts = 0
        self.polls: list[tuple[str, float]] = []
        self.sent: set[tuple[str, str]] = set()
        self.faults: dict[str, list[str]] = {}

    def create(self, request: Request, config: Config, process: Process, body: Any) -> Response:
        """Answer a create, in the thread that sends it.

        :raises CometError: there is no answer.
        """
        world = self.world
        self.posts += 1
        number = self.posts
        answer = POSTS.get(world.story.answer_of_post(number) or "")
        name = world.story.answer_of_post(number) or "accepted"
        if config.api_key != self.key:
            name, answer = "bad_key", POSTS["bad_key"]
        if answer is not None:
            self.faults.setdefault(process.owner, []).append(name)
        if answer is not None and not answer.is_sent:
            world.met_by(process, f"post {name}")
            world.effect("send", f"POST {number}: {name}", answer.seconds)
            raise protocol.transport_error(request, "connection refused", sent=False)
        made: list[Prediction] = []

        owner = world.owner_of(process, json.loads(request.body or b"{}")["input"])

        def arrives() -> None:
            self.sent.add((process.name, owner))
            body.read()
            if answer is None or answer.accepts:
                made.append(self._accept(number, json.loads(request.body or b"{}")["input"], process))
            world.met_by(process, f"post {name}")

        world.effect("send", f"POST {number}: {name}", 0.1, arrives)
        prediction = made[0] if made else None
        seconds = 0.4 if answer is None else answer.seconds
        if seconds > config.read_timeout:
            world.effect("receive", f"POST {number}: no answer", config.read_timeout)
            raise protocol.transport_error(request, "no answer in time", sent=True)
        world.effect("receive", f"POST {number}: {name}", seconds)
        if answer is None:
            answer = Answer(True, 201, {"id": "{id}", "status": "starting", "created_at": self._iso(world.kernel.now)})
        if not answer.status:
            raise protocol.transport_error(request, "connection reset", sent=True)
        if prediction is not None and name not in NAMELESS and answer.status < 300:
            prediction.is_named = True
        return self._response(answer, prediction and prediction.id)

    def poll(self, request: Request, config: Config, process: Process) -> tuple[float, Any]:
        """Return how long the answer to a poll takes, and a function that returns or raises it then."""
        world, now = self.world, self.world.kernel.now
        self.polls.append((process.name, now))
        prediction_id = request.path.rpartition("/")[2]
        prediction = self.predictions.get(prediction_id)
        row = self._poller(process)
        task_id = "" if row is None else row.task_id
        name = world.story.answer_of_get(now - world.begins, prediction.number if prediction else 0, task_id)
        if config.api_key != self.key:
            name = "bad_key"
        answer = GETS.get(name or "")
        if name and prediction is not None:
            self._met(process, f"get {name}")
        seconds = 0.2 if answer is None else answer.seconds
        if name and prediction is not None:
            prediction.faults.append((now + min(seconds, config.read_timeout), name))
        if prediction is not None:
            prediction.told_at = None
        if seconds > config.read_timeout:
            return config.read_timeout, lambda: self._lost(request, "no answer in time")
        if answer is not None and not answer.status:
            return seconds, lambda: self._lost(request, "connection reset")

        def respond() -> Response:
            if answer is not None and not answer.accepts:
                return self._response(answer, prediction_id)
            if prediction is None:
                return self._response(GETS["unknown"], prediction_id)
            described = self._describe(prediction)
            if described.get("data_removed") and prediction.end == "succeeded":
                self._met(process, "output has expired")
                prediction.is_removed = True
            prediction.told_at = world.kernel.now if world.kernel.now >= prediction.ended_at else None
            return self._response(Answer(True, 200, described), prediction_id)

        return seconds, respond

    def link(self, prediction: Prediction) -> str:
        """Return a link to the file of a prediction: each poll returns a new one, that expires some time later."""
        expires = self.world.kernel.now + self.world.cast.options["link_seconds"]
        return f"https://delivery.example.com/{prediction.id}/out.png?expires={expires:.3f}"

    def delivers(self, prediction: Prediction) -> bool:
        """Return whether the output of a prediction is still there."""
        age = self.world.kernel.now - prediction.ended_at
        return 0 <= age < self.world.cast.options["output_seconds"] and prediction.end == "succeeded"

    def _poller(self, process: Process) -> TaskInstance | None:
        """Return for which task instance a process polls."""
        if process.owner:
            return self.world.scheduler.rows[process.owner]
        trigger = TRIGGER.get(None)
        return None if trigger is None else trigger.row

    def _met(self, process: Process, label: str) -> None:
        """Note what became of a poll: of a worker, or of a trigger for its task instance."""
        world = self.world
        if process.owner:
            world.met_by(process, label)
        elif (trigger := TRIGGER.get(None)) is not None and world.scheduler.triggerers.is_awaited(trigger):
            world.met(label, trigger.row.name)

    def _accept(self, number: int, input: dict[str, Any], process: Process) -> Prediction:
        seconds, end = self.world.story.life_of(len(self.predictions) + 1)
        prediction = Prediction(
            len(self.predictions) + 1, self.world.owner_of(process, input), input, 0.0, seconds, end
        )
        prediction.created_at = self.world.kernel.now
        prediction.id = f"p{prediction.number:03d}abcdefghijklmnopqrstuv"
        if self.world.story.answer_of_post(number) == "unusable_id":
            prediction.id = f"{prediction.id} of today"
        prediction.process = process
        self.predictions[prediction.id] = prediction
        self.world.accepted(prediction)
        self.world.kernel.call_at(prediction.ended_at, lambda: self._end(prediction))
        return prediction

    def _end(self, prediction: Prediction) -> None:
        """Note how a prediction has ended, if its task knows no later one."""
        others = [other for other in self.predictions.values() if other.owner == prediction.owner]
        if others[-1] is prediction and not prediction.is_late:
            self.world.met(f"prediction {prediction.end}", prediction.owner)

    def _describe(self, prediction: Prediction) -> dict[str, Any]:
        now = self.world.kernel.now
        is_over = now >= prediction.ended_at
        end = ENDS[prediction.end] if is_over else {"status": "processing"}
        output = [self.link(prediction)] if is_over and prediction.end == "succeeded" else None
        if is_over and not self.delivers(prediction) and prediction.end == "succeeded":
            end, output = {"status": end["status"], "data_removed": True}, None
        described = {
            "id": prediction.id,
            "model": "owner/model",
            "version": "1",
            "input": prediction.input,
            "output": output,
            "error": None,
            "created_at": self._iso(prediction.created_at),
            "started_at": self._iso(prediction.created_at),
            "completed_at": self._iso(prediction.ended_at) if is_over else None,
            **end,
        }
        return {key: v.replace("{id}", prediction.id) if isinstance(v, str) else v for key, v in described.items()}

    def _lost(self, request: Request, words: str) -> Response:
        raise protocol.transport_error(request, words, sent=True)

    def _response(self, answer: Answer, prediction_id: str | None) -> Response:
        content = answer.content(prediction_id).replace(b"{key}", self.key.encode())
        kind = "text/html" if content.startswith(b"<") else "application/json"
        date = datetime.fromtimestamp(self.world.kernel.now, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"content-type": kind, "date": date, "x-cometapi-request-id": "REQ1", **answer.headers}
        return Response.received(answer.status, headers, content, self.key)

    def _iso(self, moment: float) -> str:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
