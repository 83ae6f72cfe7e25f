"""Refuse to build Maskloop as a package, because it only works as a checkout; hatchling calls this hook."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REASON = (
    "Maskloop is not built as a package: it works from its checkout, where dags/, dvc.yaml, params.yaml and git's "
    "history lie beside the code, because each dataset's tag holds the code that made it. "
    "Clone the repository and run `make setup`, which installs it in editable form."
)


class CheckoutOnly(BuildHookInterface[Any]):
    """Let editable installs pass, and stop every other build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise SystemExit with the reason unless `version` is "editable"."""
        if version != "editable":
            raise SystemExit(REASON)
