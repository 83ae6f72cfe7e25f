"""Accounts of Label Studio, as far as its API changes them, and exports that people made of a project.

The API refuses to change an address. An account that is removed from its organization stays in the database, and the
API then shows "Deleted User" instead of its names and address; its annotations stay.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import CredentialsError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.schema import ProjectJson

_REMOVED = "Deleted"  # what the API shows instead of the address of a removed account
_PAGE = 100


@dataclass(frozen=True)
class Account:
    """An account: its id, address, and the names that it shows."""

    id: int
    email: str
    names: tuple[str, ...] = ()

    @property
    def is_removed(self) -> bool:
        """Return whether the account was removed from its organization."""
        return self.email == _REMOVED


@dataclass(frozen=True)
class Export:
    """An export snapshot that somebody made of a project."""

    project: int
    id: int
    title: str


def list_accounts(client: LabelStudioClient) -> list[Account]:
    """Return all accounts of the organization, removed ones as well."""
    accounts = []
    for user in client.get("/api/users"):
        first, last = (str(user.get(name) or "").strip() for name in ("first_name", "last_name"))
        names = {f"{first} {last}".strip(), str(user.get("username") or "").strip()} - {"", str(user["email"])}
        accounts.append(Account(int(user["id"]), str(user["email"]), tuple(sorted(names))))
    return accounts


def rename_account(client: LabelStudioClient, account: int, pseudonym: str) -> None:
    """Replace an account's names by a pseudonym; its address stays, because the API refuses to change it."""
    client.patch(
        f"/api/users/{account}/", {"first_name": pseudonym, "last_name": "", "username": pseudonym, "phone": ""}
    )


def remove_account(client: LabelStudioClient, account: int) -> None:
    """Remove an account from its organization, so that it can no longer log in; its annotations stay.

    Raise ServiceError when Label Studio refuses, as it does for the owner of the organization.
    """
    organization = int(client.get("/api/current-user/whoami")["active_organization"])
    try:
        client.delete(f"/api/organizations/{organization}/memberships/{account}/")
    except CredentialsError:
        raise
    except ServiceError as error:
        if "HTTP 404" not in str(error):  # it was removed before
            raise


def list_projects(client: LabelStudioClient) -> list[ProjectJson]:
    """Return all projects."""
    page, projects = 1, list[ProjectJson]()
    while True:
        answer = client.get("/api/projects/", page=page, page_size=_PAGE)
        projects += answer["results"]
        if not answer.get("next"):
            return projects
        page += 1


def list_exports(client: LabelStudioClient, project: int) -> Iterator[Export]:
    """Yield the export snapshots of a project."""
    answer = client.get(f"/api/projects/{project}/exports/")
    for export in answer.get("results", ()) if isinstance(answer, dict) else answer:
        yield Export(project, int(export["id"]), str(export.get("title") or ""))


def read_export(client: LabelStudioClient, export: Export) -> bytes:
    """Return an export snapshot as JSON."""
    path = f"/api/projects/{export.project}/exports/{export.id}/download"
    return json.dumps(client.get(path, exportType="JSON"), ensure_ascii=False).encode()


def delete_export(client: LabelStudioClient, export: Export) -> None:
    """Delete an export snapshot."""
    client.delete(f"/api/projects/{export.project}/exports/{export.id}")
