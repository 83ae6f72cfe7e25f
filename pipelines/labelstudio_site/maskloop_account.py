"""Accounts in Label Studio: a program that runs in its environment.

Without arguments it sets the password and token of Maskloop's account to those of the environment, before Label Studio
starts: Label Studio reads both only when it creates the account, so that changed secrets would have no effect. When the
token changed, everybody else gets a new one as well.
`password ADDRESS` gives somebody a new password. `deactivate ADDRESS` closes the account of somebody who left. `forget
ADDRESS PSEUDONYM` closes it and replaces names and address by a pseudonym. `delete-exports` deletes the files that
exports left, which hold whole tasks.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import label_studio

sys.path.insert(0, str(Path(label_studio.__file__).parent))

import django  # only now: Label Studio's applications are found by this path


def main() -> None:
    """Run what the arguments ask for."""
    django.setup()
    match sys.argv[1:]:
        case []:
            update_account()
        case ["password", address]:
            new_password(address)
        case ["deactivate", address]:
            deactivate(address)
        case ["forget", address, pseudonym]:
            forget(address, pseudonym)
        case ["delete-exports"]:
            delete_exports()
        case _:
            sys.exit(
                "usage: maskloop_account.py [password ADDRESS | deactivate ADDRESS | forget ADDRESS PSEUDONYM | "
                "delete-exports]"
            )


def update_account() -> None:
    """Write what differs; nothing on the first start, when there are no tables yet."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from rest_framework.authtoken.models import Token

    people = get_user_model()
    if people._meta.db_table not in connection.introspection.table_names():
        return
    # Only these columns: a newer Label Studio may have others, which its migrations add after this program.
    accounts = people.objects.filter(email=os.environ["LABEL_STUDIO_USERNAME"])
    account = accounts.only("id", "email", "password").first()
    if account is None:
        return
    if not account.check_password(os.environ["LABEL_STUDIO_PASSWORD"]):
        account.set_password(os.environ["LABEL_STUDIO_PASSWORD"])
        account.save(update_fields=["password"])
    token = os.environ["LABEL_STUDIO_USER_TOKEN"]
    if not Token.objects.filter(user=account, key=token).exists():
        others = list(Token.objects.exclude(user=account).values_list("user_id", flat=True))
        Token.objects.all().delete()
        Token.objects.create(user=account, key=token)
        for person in others:  # new secrets for one are new ones for all
            Token.objects.create(user_id=person)


def new_password(address: str) -> None:
    """Set a new password for somebody, and print it; sessions with the old one end."""
    account = _account_of(address)
    password = secrets.token_urlsafe(12)
    account.set_password(password)
    account.save(update_fields=["password"])
    sys.stdout.write(f"{account.email} logs in with {password} from now on\n")


def _account_of(address: str) -> Any:
    """Return a person's account; end the program where there is none, and for Maskloop's own."""
    from django.contrib.auth import get_user_model

    if address.lower() == os.environ["LABEL_STUDIO_USERNAME"].lower():
        sys.exit(f"{address} is Maskloop's own account; the loop needs it")
    account = get_user_model().objects.filter(email__iexact=address).first()
    if account is None:
        sys.exit(f"nobody has an account with the address {address}; Organization in Label Studio lists them")
    return account


def deactivate(address: str) -> None:
    """Close an account: its annotations stay, its sessions and tokens end, and the invitation link is renewed."""
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token

    account = _account_of(address)
    account.is_active = False
    account.save(update_fields=["is_active"])
    Token.objects.filter(user=account).delete()
    for organization in Organization.objects.all():
        organization.reset_token()
    sys.stdout.write(f"{account.email} can't log in any more; the invitation link is a new one\n")


def forget(address: str, pseudonym: str) -> None:
    """Close an account and replace names and address by a pseudonym; its annotations stay, and belong to it."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from rest_framework.authtoken.models import Token

    if get_user_model()._meta.db_table not in connection.introspection.table_names():
        sys.exit("Label Studio's database has no accounts; is LABEL_STUDIO_BASE_DATA_DIR that of the running one?")
    if address.lower() == os.environ["LABEL_STUDIO_USERNAME"].lower():
        sys.exit(f"{address} is Maskloop's own account; the loop needs it")
    account = get_user_model().objects.filter(email__iexact=address).first()
    if account is None:
        sys.stdout.write("no account has this address any more\n")
        return
    account.email = f"{pseudonym}@forgotten.invalid"
    account.username = account.first_name = pseudonym
    account.last_name = account.phone = ""
    account.is_active = False
    account.set_unusable_password()
    fields = ["email", "username", "first_name", "last_name", "phone", "is_active", "password"]
    account.save(update_fields=fields)
    Token.objects.filter(user=account).delete()
    sys.stdout.write(f"the account is {pseudonym} now\n")


def delete_exports() -> None:
    """Delete the files that exports left; snapshots, which people made and can list, stay."""
    from django.conf import settings

    files = [path for path in Path(settings.EXPORT_DIR).iterdir() if path.is_file()]
    for path in files:
        path.unlink()
    sys.stdout.write(f"{len(files)} files deleted\n")


if __name__ == "__main__":
    main()
