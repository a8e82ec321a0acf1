"""A restore drill as a bar on the run's page: by phase, and by bytes where the engine can tell."""

from lifeboat.engines.engine import Progress
from tasks.figures import size_text
from tasks.progress import ProgressBar

# Where on the bar a phase begins, in percent: about what phases take of a drill whose files are some gigabytes.
PHASE_STARTS = {
    "create scratch cluster": 0.0,
    "read chain": 0.0,
    "restore files": 3.0,
    "check files": 3.0,  # inside the phase before it, once for each backup of the chain
    "create database": 45.0,
    "read WAL": 45.0,
    "load": 46.0,
    "recover": 50.0,
    "compare": 70.0,
    "validate": 80.0,
    "read all": 82.0,
    "check structure": 92.0,
}


class DrillProgress:
    """Moves a bar as a drill goes on."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar, self._phase = bar, ""
        self._start = self._end = self._shown = 0.0

    def phase(self, name: str) -> None:
        """A phase begins; one that is not known leaves the bar where it is."""
        self._phase, self._start = name, PHASE_STARTS.get(name, self._start)
        self._end = min((start for start in PHASE_STARTS.values() if start > self._start), default=100.0)
        self._show(self._start, name)

    def amount(self, progress: Progress) -> None:
        """The present phase is so far."""
        if progress.total_bytes:
            share = min(1.0, progress.done_bytes / progress.total_bytes)
            text = f"{self._phase}, {size_text(progress.done_bytes)} of {size_text(progress.total_bytes)}"
            self._show(self._start + share * (self._end - self._start), text)

    def _show(self, percent: float, text: str) -> None:
        # A phase that goes on after another, inside it, does not take the bar back to its beginning.
        self._shown = max(self._shown, percent)
        self._bar.show(self._shown, text)
