"""Bring the password and token of Maskloop's account in Label Studio in line with the environment, before it starts.

Label Studio reads both when it creates the account, and never again, so changed secrets would not count.
"""

import os
import sys
from pathlib import Path

import label_studio

sys.path.insert(0, str(Path(label_studio.__file__).parent))

import django  # only now: it finds Label Studio's applications by this path


def main() -> None:
    """Change what differs; nothing on the first start, when there are no tables yet."""
    django.setup()
    from django.contrib.auth import get_user_model
    from django.db import connection
    from rest_framework.authtoken.models import Token

    people = get_user_model()
    if people._meta.db_table not in connection.introspection.table_names():
        return
    account = people.objects.filter(email=os.environ["LABEL_STUDIO_USERNAME"]).first()
    if account is None:
        return
    if not account.check_password(os.environ["LABEL_STUDIO_PASSWORD"]):
        account.set_password(os.environ["LABEL_STUDIO_PASSWORD"])
        account.save(update_fields=["password"])
    wanted = os.environ["LABEL_STUDIO_USER_TOKEN"]
    if not Token.objects.filter(user=account, key=wanted).exists():
        Token.objects.filter(user=account).delete()
        Token.objects.create(user=account, key=wanted)


if __name__ == "__main__":
    main()
