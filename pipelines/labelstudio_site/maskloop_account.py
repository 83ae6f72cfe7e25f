"""Accounts in Label Studio: a program that runs in its environment.

Without arguments it sets the password and token of Maskloop's account to those of the environment, before Label Studio
starts: Label Studio reads both only when it creates the account, so that changed secrets would have no effect.
`deactivate ADDRESS` closes the account of somebody who left.
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
        case _:
            sys.exit("usage: maskloop_account.py [deactivate ADDRESS]")


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


if __name__ == "__main__":
    main()
