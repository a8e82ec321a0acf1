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

    @property
    def effective_api_url(self) -> str:
        """The API's address, ours or somebody else's."""
        return self.api_url or f"http://{self.host}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The address of the UI that belongs to the API."""
        return self.effective_api_url.removesuffix("/api")
