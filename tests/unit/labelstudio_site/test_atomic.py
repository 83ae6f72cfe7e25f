"""Writers of Label Studio's SQLite wait for each other; other databases stay as they are set up."""

from pipelines.labelstudio_site.maskloop_atomic import wait_for_writers


def test_writers_of_sqlite_wait_at_the_beginning() -> None:
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "a", "OPTIONS": {"factory": "b"}}}

    [changed] = wait_for_writers(databases).values()

    assert changed["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert changed["OPTIONS"]["timeout"] > 5
    assert changed["OPTIONS"]["factory"] == "b"
    assert databases["default"]["OPTIONS"] == {"factory": "b"}, "what was handed in is not changed"


def test_postgresql_stays_as_it_is() -> None:
    databases = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "a"}}

    assert wait_for_writers(databases) == databases
