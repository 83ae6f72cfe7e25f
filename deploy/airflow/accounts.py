"""Set the password of Maskloop's account in Airflow; in-process, because `ps` shows the arguments of a command."""

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

from pipelines.settings import get_settings


def main() -> None:
    """Create the account with the role Admin, or set its password to that of the secret."""
    settings = get_settings()
    name, password = settings.airflow_user, settings.airflow_password.get_secret_value()
    with get_application_builder() as builder:
        people = builder.sm
        if account := people.find_user(username=name):
            people.reset_password(account.id, password)
        else:
            people.add_user(name, "Maskloop", "", f"{name}@maskloop.local", people.find_role("Admin"), password)


if __name__ == "__main__":
    main()
