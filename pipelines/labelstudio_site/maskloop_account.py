"""Accounts in Label Studio: a program that runs in its environment.

Without arguments it sets the password and token of Maskloop's account to those of the environment, before Label Studio
starts: Label Studio reads both only when it creates the account, so that changed secrets would have no effect.
`deactivate ADDRESS` closes the account of somebody who left. `forget ADDRESS PSEUDONYM` closes it and replaces names
and address by a pseudonym. `delete-exports` deletes the files that exports left, which hold whole tasks.
"""

import os
import sys
from pathlib import Path

import label_studio

sys.path.insert(0, str(Path(label_studio.__file__).parent))

import django  # only now: Label Studio's applications are found by this path


def main() -> None:
    """Run what the arguments ask for."""
    django.setup()
    match sys.argv[1:]:
        case []:
            update_account()
        case ["deactivate", address]:
            deactivate(address)
        case ["forget", address, pseudonym]:
            forget(address, pseudonym)
        case ["delete-exports"]:
            delete_exports()
        case _:
            sys.exit("usage: maskloop_account.py [deactivate ADDRESS | forget ADDRESS PSEUDONYM | delete-exports]")


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
        Token.objects.filter(user=account).delete()
        Token.objects.create(user=account, key=token)


def deactivate(address: str) -> None:
    """Close an account: its annotations stay, its sessions and tokens end, and the invitation link is renewed."""
    from django.contrib.auth import get_user_model
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token

    if address.lower() == os.environ["LABEL_STUDIO_USERNAME"].lower():
        sys.exit(f"{address} is Maskloop's own account; the loop needs it")
    account = get_user_model().objects.filter(email__iexact=address).first()
    if account is None:
        sys.exit(f"nobody has an account with the address {address}; Organization in Label Studio lists them")
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
