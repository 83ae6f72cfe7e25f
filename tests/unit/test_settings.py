"""Settings come from the environment, `.env` and the generated secrets, in that order of weight."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import settings as module
from pipelines.errors import ConfigurationError
from pipelines.settings import PROJECT_ROOT, SECRETS_FILE, Settings, get_settings


@pytest.fixture(autouse=True)
def project_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder without `.env`, and nothing read yet."""
    monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path)
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_variables_carry_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_SOURCE_BUCKET", "museum")
    monkeypatch.setenv("TARGET_BUCKET", "without-prefix")
    assert get_settings().source_bucket == "museum"
    assert get_settings().target_bucket == "labels"


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_settings()
    monkeypatch.setenv("MASKLOOP_SOURCE_BUCKET", "museum")
    assert get_settings() is before


def test_every_bad_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_MLFLOW_PORT", "five thousand")
    monkeypatch.setenv("MASKLOOP_STORAGE_EMULATOR", "perhaps")
    with pytest.raises(ConfigurationError, match=r"MASKLOOP_STORAGE_EMULATOR: .*MASKLOOP_MLFLOW_PORT: .*integer"):
        get_settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert len(secrets) == 13
    for name in secrets:
        monkeypatch.setenv(f"MASKLOOP_{name.upper()}", f"hush-{name}")
    settings = get_settings()
    assert settings.airflow_password.get_secret_value() == "hush-airflow_password"
    assert "hush" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_the_environment_outweighs_dotenv_and_dotenv_the_secrets(
    project_without_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = project_without_settings / "var" / SECRETS_FILE
    secrets.parent.mkdir()
    secrets.write_text("MASKLOOP_AIRFLOW_USER=a\nMASKLOOP_MODEL_NAME=a\nMASKLOOP_CATALOG=a\n", encoding="utf-8")
    (project_without_settings / ".env").write_text("MASKLOOP_MODEL_NAME=b\nMASKLOOP_CATALOG=b\n", encoding="utf-8")
    monkeypatch.setenv("MASKLOOP_CATALOG", "c")
    settings = get_settings()
    assert (settings.airflow_user, settings.model_name, settings.catalog) == ("a", "b", "c")


def test_secrets_lie_in_the_state_folder_that_dotenv_names(project_without_settings: Path) -> None:
    (project_without_settings / ".env").write_text("MASKLOOP_VAR=elsewhere\n", encoding="utf-8")
    (project_without_settings / "elsewhere").mkdir()
    (project_without_settings / "elsewhere" / SECRETS_FILE).write_text("MASKLOOP_LABEL_STUDIO_TOKEN=abc\n")
    settings = get_settings()
    assert settings.var == project_without_settings / "elsewhere"
    assert settings.label_studio_token.get_secret_value() == "abc"


@pytest.mark.parametrize(("written", "meant"), [("state", "{root}/state"), ("/srv/state", "/srv/state")])
def test_a_relative_state_folder_lies_in_the_project_wherever_one_stands(
    project_without_settings: Path, monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    monkeypatch.setenv("MASKLOOP_VAR", written)
    monkeypatch.chdir("/")
    assert get_settings().var == Path(meant.format(root=project_without_settings))
    assert get_settings().workspace_path == get_settings().var / "workspace"


def test_an_empty_workspace_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_WORKSPACE", "")
    assert get_settings().workspace is None


def test_urls_are_local_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_MLFLOW_URL", "https://mlflow.example.org/")
    monkeypatch.setenv("MASKLOOP_AIRFLOW_PORT", "18081")
    assert get_settings().url("mlflow") == "https://mlflow.example.org"
    assert get_settings().url("airflow") == "http://127.0.0.1:18081"


def test_google_cloud_storage_has_no_local_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_STORAGE_EMULATOR", "false")
    assert get_settings().storage_endpoint is None


def test_the_workspaces_params_are_in_force_once_it_exists(project_without_settings: Path) -> None:
    settings = get_settings()
    assert settings.params_path == project_without_settings / "params.yaml"
    settings.workspace_path.mkdir(parents=True)
    (settings.workspace_path / "params.yaml").touch()
    assert settings.params_path == settings.workspace_path / "params.yaml"


def test_root_is_the_folder_with_params_yaml() -> None:
    assert (PROJECT_ROOT / "params.yaml").exists()


def test_mounted_secrets_are_read_and_the_environment_outweighs_them(
    project_without_settings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in {"maskloop_service_password": "mounted\n", "maskloop_airflow_password": "mounted"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("pipelines.settings._MOUNTED_SECRETS", tmp_path)
    monkeypatch.setenv("MASKLOOP_AIRFLOW_PASSWORD", "set")
    settings = get_settings()
    assert settings.service_password.get_secret_value() == "mounted"
    assert settings.airflow_password.get_secret_value() == "set"


def test_people_get_the_address_of_the_proxy_and_services_do_not() -> None:
    settings = Settings(_env_file=None, mlflow_url="http://mlflow:5000", mlflow_address="https://loop.example/mlflow/")
    assert settings.url("mlflow") == "http://mlflow:5000"
    assert settings.address("mlflow") == "https://loop.example/mlflow"
    assert settings.address("airflow") == settings.url("airflow")


def test_an_empty_checkpoint_turns_segment_anything_off(
    project_without_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings(_env_file=None).sam_checkpoint == "auto"  # type: ignore[call-arg]  # pydantic-settings' own
    (project_without_settings / ".env").write_text("MASKLOOP_SAM_CHECKPOINT=\nMASKLOOP_CATALOG=\n", encoding="utf-8")
    assert (get_settings().sam_checkpoint, get_settings().catalog) == ("none", "catalogue.csv")
    get_settings.cache_clear()
    monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", "vit_b")
    assert get_settings().sam_checkpoint == "vit_b"
    get_settings.cache_clear()
    monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", "")
    assert get_settings().sam_checkpoint == "none"
