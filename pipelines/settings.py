"""Settings and secrets, read once from the environment, `.env`, and generated or mounted secrets.

Nothing here changes data bytes or weights; params.yaml holds what does.
"""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipelines.contract import ServiceName
from pipelines.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SECRETS_FILE = "secrets.env"
_MOUNTED_SECRETS = Path("/run/secrets")  # of a container: a file per setting, such as maskloop_service_password


class Settings(BaseSettings):
    """Every setting is an environment variable MASKLOOP_<NAME>; `.env.example` lists and explains them."""

    model_config = SettingsConfigDict(env_prefix="MASKLOOP_", env_ignore_empty=True, extra="ignore", frozen=True)

    var: Path = Field(
        Path("var"), validate_default=True, description="State of the local stack: databases, logs, buckets, workspace"
    )
    workspace: Path | None = Field(None, description="Git and DVC workspace of the datasets; var/workspace if unset")
    host: str = Field("127.0.0.1", description="Address every local service binds to and is reached at")
    composed: bool = Field(
        False, description="Services are containers of docker-compose.yml: `maskloop up` only sets them up"
    )

    storage_emulator: bool = Field(
        True, description="Run and use a local bucket server instead of Google Cloud Storage"
    )
    storage_port: int = Field(4443, description="Port of the local bucket server")
    storage_url: str = Field("", description="Address of the bucket server; the local one if empty")
    source_bucket: str = Field("archive", description="Bucket with the photos")
    source_prefix: str = Field("photos/", description="Only objects below this prefix are photos")
    catalog: str = Field("catalogue.csv", description="Object name of the catalogue CSV in the source bucket")
    target_bucket: str = Field("labels", description="Bucket that mirrors each annotation's JSON")
    dvc_bucket: str = Field("datasets", description="Bucket of the DVC remote")
    bucket_location: str = Field(
        "", description="Location in which `maskloop buckets setup` creates buckets, such as EU; US if empty"
    )
    google_key: SecretStr = Field(
        SecretStr(""), description="Service account's key in base64; empty: application default credentials"
    )
    billing_project: str = Field(
        "", description="Google Cloud project that pays for requests to buckets whose requester pays; none if empty"
    )
    google_connection: str = Field("google_cloud_default", description="Airflow connection id for the buckets")

    label_studio_port: int = Field(8080, description="Port of Label Studio")
    label_studio_url: str = Field("", description="Address of Label Studio; the local one if empty")
    label_studio_address: str = Field("", description="Its address for browsers, where a proxy gives it another one")
    label_studio_email: str = Field("admin@maskloop.local", description="Account Maskloop uses in Label Studio")
    label_studio_password: SecretStr = Field(SecretStr(""), description="Its password; generated on the first start")
    label_studio_token: SecretStr = Field(SecretStr(""), description="Its access token; generated on the first start")

    mlflow_port: int = Field(5000, description="Port of MLflow")
    mlflow_url: str = Field("", description="Address of MLflow; the local one if empty")
    mlflow_address: str = Field("", description="Its address for browsers, where a proxy gives it another one")
    mlflow_database: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL of its database; SQLite if empty")
    model_name: str = Field("clothing", description="Name of the registered clothing model")
    clicks_model_name: str = Field("clicks", description="Name of the registered click model")

    segmentation_port: int = Field(7070, description="Port of the segmentation service")
    segmentation_url: str = Field("", description="Address of the segmentation service; the local one if empty")
    segment_anything_port: int = Field(9090, description="Port of the Segment Anything service")
    segment_anything_url: str = Field("", description="Address of the Segment Anything service; the local one if empty")
    service_user: str = Field("maskloop", description="Login that both model services ask for (basic auth)")
    service_password: SecretStr = Field(
        SecretStr(""),
        description="Its password; generated on the first start; without one the services require no login",
    )
    image_hosts: str = Field(
        "", description="Hosts, separated by commas, whose https photos the model services may read besides the bucket"
    )
    cold_start: str = Field(
        "",
        description="SegFormer that pre-labels while there is no champion: a folder or a Hugging Face name, such as "
        "mattmdjaga/segformer_b2_clothes; empty: none",
    )
    sam_checkpoint: str = Field(
        "auto",
        description="Segment Anything for clicks: auto, none, a name such as sam2.1_tiny or vit_b, a path, or a "
        "Hugging Face name with its revision (docs/segment-anything.md)",
    )
    threads: int = Field(2, description="CPU threads of each model service")

    airflow_port: int = Field(8081, description="Port of Airflow")
    airflow_url: str = Field("", description="Address of Airflow; the local one if empty")
    airflow_address: str = Field("", description="Its address for browsers, where a proxy gives it another one")
    airflow_user: str = Field("admin", description="Airflow account that starts runs")
    airflow_password: SecretStr = Field(SecretStr(""), description="Its password; generated on the first start")

    airflow_jwt_secret: SecretStr = Field(SecretStr(""), description="Signs Airflow's tokens; generated on first start")
    airflow_fernet_key: SecretStr = Field(
        SecretStr(""), description="Encrypts connections that people add in Airflow; none are stored if empty"
    )
    airflow_database: SecretStr = Field(
        SecretStr(""), description="SQLAlchemy URL of its database; SQLite, and one account, if empty"
    )
    airflow_broker: SecretStr = Field(
        SecretStr(""), description="URL of the Redis broker of Celery workers; no workers if empty"
    )

    alert_webhook: SecretStr = Field(
        SecretStr(""),
        description="Address that failed DAG runs are posted to as JSON with a text (Slack, Teams); none if empty",
    )
    alert_email: str = Field("", description="Addresses, separated by commas, that failed DAG runs are mailed to")
    smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Mail server for these, such as smtp://user:password@host:587 (smtps: TLS from the start)",
    )

    backup: str = Field(
        "",
        description="Where `deploy/maskloop backup` writes: a file, or gs://bucket/prefix, whose newest backup status, "
        "doctor and an alert watch; nowhere by itself if empty",
    )

    git_remote: SecretStr = Field(
        SecretStr(""),
        description="Git remote that dataset commits and tags are pushed to, with a token if it needs one; none if "
        "empty. Machines that publish the same datasets have the same",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let an empty MASKLOOP_SAM_CHECKPOINT mean none; all other empty variables are as good as unset."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        dotenv = DotEnvSettingsSource(settings_cls, dotenv_settings.env_file, env_ignore_empty=False)
        written = dotenv() | EnvSettingsSource(settings_cls, env_ignore_empty=False)()
        off = {"sam_checkpoint": "none"} if written.get("sam_checkpoint") == "" else {}
        last = InitSettingsSource(settings_cls, init_kwargs=off)
        return init_settings, env_settings, dotenv_settings, file_secret_settings, last

    @field_validator("var", "workspace")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path if path is None else (PROJECT_ROOT / path.expanduser()).resolve()

    @field_validator("workspace", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value

    def url(self, service: ServiceName) -> str:
        """Return the base URL of `label_studio`, `mlflow`, `segmentation`, `segment_anything` or `airflow`."""
        return getattr(self, f"{service}_url").rstrip("/") or f"http://{self.host}:{getattr(self, f'{service}_port')}"

    def address(self, service: ServiceName) -> str:
        """Return the base URL of `label_studio`, `mlflow` or `airflow` for people's browsers."""
        return getattr(self, f"{service}_address", "").rstrip("/") or self.url(service)

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts, with their ports if given, whose https photos may be read."""
        return frozenset(host.strip() for host in self.image_hosts.split(",") if host.strip())

    @property
    def storage_endpoint(self) -> str | None:
        """Return the address of the local bucket server, or None for Google Cloud Storage."""
        local = self.storage_url.rstrip("/") or f"http://{self.host}:{self.storage_port}"
        return local if self.storage_emulator else None

    @property
    def workspace_path(self) -> Path:
        """Return the folder of the dataset workspace."""
        return self.workspace or self.var / "workspace"

    @property
    def params_path(self) -> Path:
        """Return the path of the params.yaml in force: the workspace's, or the project's before there is one."""
        committed = self.workspace_path / "params.yaml"
        return committed if committed.exists() else PROJECT_ROOT / "params.yaml"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings once per process.

    Raises ConfigurationError naming each variable that has a bad value.
    """
    dotenv = PROJECT_ROOT / ".env"
    try:
        var = Settings(_env_file=dotenv).var
        mounted = _MOUNTED_SECRETS if _MOUNTED_SECRETS.is_dir() else None
        return Settings(_env_file=(var / SECRETS_FILE, dotenv), _secrets_dir=mounted)
    except ValidationError as error:
        problems = "; ".join(f"MASKLOOP_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"bad settings in the environment or .env: {problems}") from error
