"""What the pipelines and the segmentation service both read from MLflow: the champion, and the files of a network.

A service answers before MLflow's client is loaded, so this module imports neither MLflow nor torch on import.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ModelError, ServiceError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

CHAMPION = "champion"  # alias of the version that serves
ANSWERS = "maskloop.answers"  # tag of a version of the click model: which segmenter answers which kind of prompts
NETWORK = "network"  # artifact folder of a version's run: weights.safetensors, model.json, proposals.json
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's error codes for what does not exist


class RegistryReader:
    """The versions of the model `name` in the registry of the MLflow server at `url`.

    How often and how long requests are repeated follows from MLflow's own environment variables.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url

    @cached_property
    def client(self) -> "MlflowClient":
        """Return MLflow's client of this server."""
        from mlflow import MlflowClient

        return MlflowClient(self.url)

    def champion(self) -> "RegisteredVersion | None":
        """Return the version that the alias points to; None while there is none.

        Raises ServiceError when MLflow does not answer.
        """
        return self._existing(lambda: self.client.get_model_version_by_alias(self.name, CHAMPION))

    def version(self, number: int | str) -> "RegisteredVersion | None":
        """Return the version of this number; None when there is none.

        Raises ServiceError when MLflow does not answer.
        """
        return self._existing(lambda: self.client.get_model_version(self.name, str(number)))

    def download_network(self, number: int, run_id: str, folder: Path) -> Path:
        """Download the network of version `number`, which run `run_id` made; returns the folder that holds its files.

        `folder` must exist; the returned one lies in it. Raises ModelError when the files cannot be had.
        """
        from mlflow.exceptions import MlflowException

        try:
            return Path(self.client.download_artifacts(run_id, NETWORK, str(folder)))
        except (MlflowException, OSError) as error:
            raise ModelError(f"cannot download {self.name}:v{number} from MLflow at {self.url}: {error}") from error

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn MLflow's own errors into ServiceError, which names the server and what to check."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise ServiceError(
                f"cannot ask MLflow at {self.url}: {error.message}; check that it is up (`maskloop status`) and that "
                "MASKLOOP_MLFLOW_URL is right"
            ) from error

    def _existing(self, ask: "Callable[[], RegisteredVersion]") -> "RegisteredVersion | None":
        """Return the version that `ask` gets from MLflow; None when it does not exist."""
        from mlflow.exceptions import MlflowException

        with self.explained():
            try:
                return ask()
            except MlflowException as error:
                if error.error_code in _MISSING:
                    return None
                raise
