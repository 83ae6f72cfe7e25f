"""Personal access tokens of a real Label Studio: exchanged, refreshed, and when revoked, named."""

import pytest

from pipelines.errors import CredentialsError
from pipelines.labelstudio.client import LabelStudioClient, connect, is_personal_token

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture
def personal_token(stack_after_two_rounds):
    labels = connect(stack_after_two_rounds.settings)
    for token in labels.get("/api/token/"):
        labels.post("/api/token/blacklist/", {"refresh": token["token"]})
    return labels.post("/api/token/", {})["token"]


def test_a_personal_token_does_everything_that_a_legacy_one_does(stack_after_two_rounds, personal_token):
    assert is_personal_token(personal_token)

    said = stack_after_two_rounds.run("doctor", MASKLOOP_LABEL_STUDIO_TOKEN=personal_token)

    words = " ".join(said.replace("│", " ").split())
    assert "personal access token, refreshed automatically" in words
    client = LabelStudioClient(stack_after_two_rounds.settings.url("label_studio"), personal_token)
    assert client.sdk.users.whoami().email == client.get("/api/current-user/whoami")["email"]


def test_a_revoked_token_is_named(stack_after_two_rounds, personal_token):
    connect(stack_after_two_rounds.settings).post("/api/token/blacklist/", {"refresh": personal_token})

    with pytest.raises(CredentialsError, match="exchange of the personal access token"):
        LabelStudioClient(stack_after_two_rounds.settings.url("label_studio"), personal_token).get("/api/projects/")
    said = stack_after_two_rounds.run("ingest", ok=False, MASKLOOP_LABEL_STUDIO_TOKEN=personal_token)
    assert "MASKLOOP_LABEL_STUDIO_TOKEN" in said
