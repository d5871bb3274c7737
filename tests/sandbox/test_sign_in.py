"""Sign-in as msal does it over TLS, and what the systems say to tokens that are none of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jwt
import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.sandbox.client import Client, Control, Info, error_code, session, sign_in


@pytest.fixture
def erp(info: Info) -> Iterator[Client]:
    """For one test: it changes what the client shows."""
    client = Client(info, "erp")
    yield client
    client.close()


@pytest.fixture
def crm(info: Info) -> Iterator[Client]:
    client = Client(info, "crm")
    yield client
    client.close()


class TestToken:
    """Source: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    """

    @pytest.mark.parametrize("system", ["erp", "crm"])
    @pytest.mark.parametrize("other", [False, True])
    def test_is_given_for_a_client_secret(self, info: Info, system: str, other: bool):
        answer = sign_in(info, system, other=other)

        assert ("Bearer", 3599) == (answer["token_type"], answer["expires_in"])

    def test_is_given_for_a_client_secret_in_the_header(self, info: Info):
        """RFC 6749, section 2.3.1: `client_secret_basic`, which the discovery document names."""
        erp = info["erp"]
        reply = session(info).post(
            f"{info['sign_in']['authority']}/oauth2/v2.0/token",
            data={"grant_type": "client_credentials", "scope": erp["scope"]},
            auth=(erp["client_id"], erp["client_secret"]),
            timeout=10,
        )

        assert (200, "Bearer") == (reply.status_code, reply.json()["token_type"])

    @pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic bm9ib2R5", "Basic bm9ib2R5Og==", "Basic /w=="])
    def test_is_not_given_for_a_header_that_names_nobody(self, info: Info, header: str):
        reply = session(info).post(
            f"{info['sign_in']['authority']}/oauth2/v2.0/token",
            data={"grant_type": "client_credentials", "scope": info["erp"]["scope"]},
            headers={"Authorization": header},
            timeout=10,
        )

        assert (400, "unauthorized_client") == (reply.status_code, reply.json()["error"])

    def test_is_signed_by_a_published_key_and_names_audience_and_application(self, info: Info):
        token = sign_in(info, "crm")["access_token"]
        authority = info["sign_in"]["authority"]
        with session(info) as http:
            discovery = http.get(f"{authority}/v2.0/.well-known/openid-configuration", timeout=5).json()
            keys = http.get(discovery["jwks_uri"], timeout=5).json()["keys"]

        key_id = jwt.get_unverified_header(token)["kid"]
        key = next(jwt.PyJWK(key) for key in keys if key["kid"] == key_id)
        claims = jwt.decode(token, key, algorithms=["RS256"], audience=info["crm"]["scope"].removesuffix("/.default"))

        assert info["crm"]["client_id"] == claims["appid"]
        assert info["sign_in"]["tenant_id"] == claims["tid"]

    def test_is_given_for_a_certificate(self, info: Info):
        folder = Path(info["ca_file"]).parent
        certificate = (folder / "app.pem").read_bytes()
        thumbprint = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()
        with session(info) as http:
            application = msal.ConfidentialClientApplication(
                info["erp"]["client_id"],
                authority=info["sign_in"]["authority"],
                client_credential={
                    "private_key": (folder / "app-key.pem").read_text(),
                    "thumbprint_sha256": thumbprint,
                    "public_certificate": certificate.decode(),
                },
                instance_discovery=False,
                http_client=http,
            )
            answer = application.acquire_token_for_client([info["erp"]["scope"]])

        assert "access_token" in answer, answer

    @pytest.mark.parametrize(
        ("changed", "error", "number"),
        [
            ({"client_secret": "wrong"}, "invalid_client", 7000215),
            ({"client_id": "00000000-0000-4000-8000-00000000dead"}, "unauthorized_client", 700016),
            ({"scope": "https://elsewhere.example/.default"}, "invalid_resource", 500011),
            ({"scope": "https://api.businesscentral.dynamics.com/Some.Right"}, "invalid_scope", 1002012),
        ],
    )
    def test_is_refused_with_the_code_of_the_service(self, info: Info, changed, error: str, number: int):
        answer = sign_in(info, "erp", **changed)

        assert (error, [number]) == (answer["error"], answer["error_codes"])
        assert answer["error_description"].startswith(f"AADSTS{number}: ")


class TestRefusedTokens:
    """Source: https://www.rfc-editor.org/rfc/rfc6750"""

    def test_business_central_answers_with_its_error_body(self, info: Info, erp: Client):
        erp.http.headers["Authorization"] = f"Bearer {sign_in(info, 'crm')['access_token']}"

        assert (401, "Authentication_InvalidCredentials") == error_code(erp.get("customers"))

    def test_dataverse_answers_with_a_challenge_and_no_body(self, info: Info, crm: Client):
        crm.http.headers["Authorization"] = f"Bearer {sign_in(info, 'erp')['access_token']}"

        reply = crm.get("accounts")

        assert (401, b"") == (reply.status_code, reply.content)
        assert reply.headers["WWW-Authenticate"].startswith(f"Bearer authorization_uri={info['sign_in']['authority']}")

    def test_a_token_can_be_expired(self, info: Info, control: Control, erp: Client, crm: Client):
        """Source: the sandbox itself."""
        assert 200 == erp.get("customers?$top=1").status_code

        control("POST", "expire", {"what": "tokens"})

        assert (401, 401) == (erp.get("customers").status_code, crm.get("WhoAmI").status_code)
        fresh = Client(info, "erp")
        assert 200 == fresh.get("customers?$top=1").status_code
        fresh.close()
