"""Progress of long work as a Prefect artifact."""

import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.runtime import flow_run, task_run

_INTERVAL_SECONDS = 2.0
_LAST_WORD_SECONDS = 5.0
_LOG = logging.getLogger("lifeboat")


class ProgressBar:
    """A bar on the run's page. A thread of its own sends it: a slow or dead API never slows the work down."""

    def __init__(self, key: str, title: str) -> None:
        self._key, self._shown = key, (0.0, title)
        self._title = title
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True, name="progress")
        self._flow_run_id, self._task_run_id = flow_run.id, task_run.id

    def __enter__(self) -> Self:
        if self._flow_run_id is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.show(100.0)
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_WORD_SECONDS)

    def show(self, percent: float, note: str = "") -> None:
        """Move the bar; may be called as often as one likes, from any thread."""
        self._shown = (max(0.0, min(100.0, round(percent, 1))), f"{self._title}: {note}" if note else self._title)

    def note(self, text: str) -> None:
        """Say how far work of unknown length is: the words change, the bar does not move."""
        self.show(self._shown[0], text)

    def _send(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                identifier, sent = self._create(client), (0.0, "")
                while not self._ended.wait(_INTERVAL_SECONDS):
                    sent = self._update(client, identifier, sent)
                self._update(client, identifier, sent)
        except Exception as error:  # noqa: BLE001 - the work goes on without its bar
            _LOG.debug("no progress is shown: %s", error)

    def _create(self, client: SyncPrefectClient) -> UUID:
        percent, title = self._shown
        request = ArtifactCreate(type="progress", key=self._key, data=percent, description=title)
        with suppress(TypeError, ValueError):
            request.flow_run_id = UUID(self._flow_run_id)
            request.task_run_id = UUID(self._task_run_id)
        return client.create_artifact(request).id

    def _update(self, client: SyncPrefectClient, identifier: UUID, sent: tuple[float, str]) -> tuple[float, str]:
        shown = self._shown
        if shown != sent:
            client.update_artifact(identifier, ArtifactUpdate(data=shown[0], description=shown[1]))
        return shown
