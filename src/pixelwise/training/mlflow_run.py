"""A run on an MLflow server, sent from a thread, so that training never waits for a network."""

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

EVERY = 5.0
"""Seconds between two sendings. After a failure they become twice as many each time, up to a minute."""
WAIT = 30.0
"""Seconds that the end of a run waits for the server."""
METRICS, PARAMETERS = 900, 90
"""In one request; a server takes up to 1000 and 100."""
LONGEST = 500
"""Characters of a parameter's value; the oldest servers take no more."""
PICTURES = 40
"""Pictures that wait at most, for a server that does not answer."""


class MLflowRun:
    """Gathers numbers and pictures, and sends them in their order. What was not sent is sent again later."""

    def __init__(
        self, mlflow: ModuleType, title: str, known: str | None, settings: dict[str, Any], keep: Callable[[str], None]
    ) -> None:
        """Begin; the server is asked for nothing yet.

        Args:
            mlflow: the package.
            title: of the run, where it is new.
            known: what the server calls it, where it is not.
            settings: of the run, by their names.
            keep: called with what the server calls the run, from the thread.
        """
        self.mlflow, self.title, self.known, self.keep = mlflow, title, known, keep
        self._settings = list(settings.items()) if known is None else []
        self._ended_before = known is not None
        self._rows: deque[dict] = deque()
        self._pictures: deque[tuple[str, np.ndarray]] = deque(maxlen=PICTURES)
        self._files: list[tuple[Path, str | None]] = []
        self._status, self._problem, self._told = "", "", False
        self._client: Any = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send_now_and_then, name="mlflow", daemon=True)
        self._thread.start()

    def add_row(self, row: dict) -> None:
        """Take a row of the log."""
        self._rows.append({"time": time.time(), **row})

    def add_picture(self, path: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Take a picture, and its place among the run's artifacts."""
        self._pictures.append((path, picture))

    def problem(self) -> str | None:
        """Return once why a sending failed."""
        if not self._problem or self._told:
            return None
        self._told = True
        return self._problem

    def end(self, status: str, files: Sequence[tuple[Path, str | None]]) -> bool:
        """Send all that is left, and wait for that up to `WAIT` seconds.

        Args:
            status: MLflow's word.
            files: with their folders among the artifacts; None: none.

        Returns:
            whether all was sent.
        """
        self._files, self._status = list(files), status
        self._ending.set()
        self._thread.join(WAIT)
        return not (self._thread.is_alive() or self._rows or self._files)

    def _send_now_and_then(self) -> None:
        pause = EVERY
        while not self._ending.wait(pause):
            pause = EVERY if self._sent() else min(60.0, 2 * pause)
        self._sent()

    def _sent(self) -> bool:
        try:
            self._send()
        except Exception as problem:
            # MLflow raises errors of many kinds; the main thread says the first.
            self._problem = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
            return False
        return True

    def _send(self) -> None:
        """Send all that waits; what was sent waits no more, wherever an error ends this."""
        client = self._client = self._client or self.mlflow.MlflowClient()
        if self.known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pixelwise")
            experiment = client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else client.create_experiment(name)
            self.known = str(client.create_run(number, run_name=self.title).info.run_id)
            self.keep(self.known)
        if self._ended_before:
            # Else a run that goes on would look as it ended before: finished, failed or killed.
            client.update_run(self.known, status="RUNNING")
            self._ended_before = False
        entities = self.mlflow.entities
        while self._settings:
            part = self._settings[:PARAMETERS]
            client.log_batch(self.known, params=[entities.Param(key, str(value)[:LONGEST]) for key, value in part])
            self._settings = self._settings[PARAMETERS:]
        while self._rows:
            rows, metrics = 0, []
            for row in self._rows.copy():
                told = [(key, value) for key, value in row.items() if key not in ("time", "step") and value is not None]
                if metrics and len(metrics) + len(told) > METRICS:
                    break
                rows += 1
                when = int(row["time"] * 1000)
                metrics += [entities.Metric(_allowed(key), value, when, row["step"]) for key, value in told]
            client.log_batch(self.known, metrics=metrics)
            for _ in range(rows):
                self._rows.popleft()
        while self._pictures:
            path, picture = self._pictures[0]
            client.log_image(self.known, picture, path)
            self._pictures.popleft()
        while self._files:
            path, place = self._files[0]
            client.log_artifact(self.known, str(path), place)
            self._files.pop(0)
        if self._status:
            client.set_terminated(self.known, self._status)


def _allowed(name: str) -> str:
    """Return a name with what MLflow allows in one: letters, digits, and a few signs."""
    return re.sub(r"[^\w./ :-]", "_", name)
