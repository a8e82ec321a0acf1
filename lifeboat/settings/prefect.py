"""Settings of the Prefect server, worker and deployments that `lifeboat up` runs."""

from pydantic import Field

from lifeboat.settings.base import Name, Section


class PrefectSettings(Section):
    """Where Prefect is. With `api_url` set, `lifeboat up` starts no server of its own."""

    api_url: str | None = Field(None, description="The API of a Prefect server that somebody else runs.")
    host: str = Field("127.0.0.1", description="The address that our own server binds to.")
    port: int = Field(4200, ge=1, le=65535, description="The port of our own server.")
    work_pool: Name = Field("lifeboat", description="The process work pool of the deployments.")
    worker_limit: int = Field(4, ge=1, description="Flow runs that our worker runs side by side.")
    worker_poll_seconds: float = Field(2, ge=1, description="How often our worker asks for runs that are due.")
    drain_seconds: float = Field(
        300, ge=0, description="How long `lifeboat up` waits for running flows when it stops; then it cancels them."
    )
    stale_minutes: float = Field(
        15, gt=0, description="A scheduled run that starts later than this is skipped when a newer one is due too."
    )
    zombie_minutes: float = Field(
        15, ge=10, description="A run that shows no sign of life for so long is marked as crashed by `reconcile`."
    )

    @property
    def effective_api_url(self) -> str:
        """The API's address, ours or somebody else's."""
        return self.api_url or f"http://{self.host}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The address of the UI that belongs to the API."""
        return self.effective_api_url.removesuffix("/api")
