"""Sign-in: msal against the sandbox's sign-in service, and every way in which it fails."""

from __future__ import annotations

import datetime as dt
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from drawbar.odata import adapter_for, open_http
from drawbar.sandbox.server import SandboxOptions, start_in_thread
from drawbar.settings import Settings, from_connection
from drawbar.signin import SignIn, authority_of, sign_in_for
from schemas.errors import DrawbarError, SettingsError, SignInFailed, TokenRefused, Unreachable
from schemas.records import System

SECRET = "not-the-secret-7f3a"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    info, stop = start_in_thread(
        SandboxOptions(state_dir=tmp_path_factory.mktemp("sandbox"), seed="empty", limits=False)
    )
    yield info
    stop()


def settings_of(info: dict[str, Any], **changes: dict[str, Any]) -> Settings:
    values = from_connection({**info, "bootstrap_servers": "nowhere:1"})
    for part, change in changes.items():
        values[part] = {**values[part], **change}
    return Settings(**values)


def assert_says_what_to_do(fault: DrawbarError) -> None:
    """What, where, what to do; no secret."""
    text = fault.for_people()
    assert fault.where
    assert fault.todo
    assert SECRET not in text


@pytest.mark.parametrize("system", list(System), ids=str)
class TestToken:
    def test_opens_the_system(self, sandbox, system):
        """A secret from the connection file gives a token that the system takes."""
        settings = settings_of(sandbox)
        http = open_http(settings, system)
        http.sign_in()
        adapter = adapter_for(settings, system)
        entity = adapter.entity("customer" if system is System.ERP else "account")

        assert http.call("GET", f"{adapter.collection_path(entity)}?$top=1").status == 200
        http.close()

    def test_takes_a_secret_from_a_file(self, sandbox, system, tmp_path: Path):
        """Secrets come from the environment or from a file."""
        file = tmp_path / "secret"
        file.write_text(sandbox[system.value]["client_secret"] + "\n")
        settings = settings_of(sandbox, **{system.value: {"client_secret": None, "client_secret_file": file}})

        assert sign_in_for(settings, system).token()

    def test_is_kept_until_a_fresh_one_is_asked_for(self, sandbox, system):
        """One token serves all requests of an hour."""
        sign_in = sign_in_for(settings_of(sandbox), system)
        first = sign_in.token()

        assert first == sign_in.token()
        assert sign_in.token(fresh=True)

    def test_refused_says_which_application(self, sandbox, system):
        """A wrong secret stops the start with one coded error."""
        sign_in = sign_in_for(settings_of(sandbox, **{system.value: {"client_secret": SECRET}}), system)

        with pytest.raises(SignInFailed) as fault:
            sign_in.token()

        assert_says_what_to_do(fault.value)
        assert sandbox[system.value]["client_id"] in fault.value.where


class TestFailure:
    def test_of_a_wrong_scope_is_the_scopes(self):
        """A token for something else is refused by its scope."""

        class Application:
            def acquire_token_for_client(self, scopes):
                return {"error": "invalid_scope", "error_description": f"AADSTS70011: {SECRET} is not valid."}

        sign_in = a_sign_in("https://login.example/tenant")
        sign_in._application = Application()

        with pytest.raises(TokenRefused, match="AADSTS70011") as fault:
            sign_in.token()
        assert_says_what_to_do(fault.value)

    def test_of_a_service_that_is_not_there_is_unreachable(self):
        """Nobody listens: that is no fault of the secret."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        with pytest.raises(Unreachable) as fault:
            a_sign_in(f"https://127.0.0.1:{port}/tenant").token()
        assert_says_what_to_do(fault.value)

    def test_of_an_unknown_certificate_authority_is_unreachable(self, sandbox):
        """The sandbox's certificate is trusted by its own file only."""
        with pytest.raises(Unreachable, match="SSLError") as fault:
            a_sign_in(sandbox["sign_in"]["authority"]).token()
        assert_says_what_to_do(fault.value)

    def test_of_an_address_that_is_none_is_a_sign_in_failure(self):
        """msal refuses it before anything is sent."""
        with pytest.raises(SignInFailed) as fault:
            a_sign_in("https://").token()
        assert_says_what_to_do(fault.value)


class TestCertificate:
    def test_stands_in_for_a_secret(self, sandbox, tmp_path: Path):
        """msal sends an assertion signed with the key of the certificate that the service knows."""
        pem = tmp_path / "application.pem"
        folder = Path(sandbox["ca_file"]).parent
        pem.write_text((folder / "app-key.pem").read_text() + (folder / "app.pem").read_text())
        settings = settings_of(sandbox, erp={"client_secret": None, "client_certificate_file": pem})

        assert sign_in_for(settings, System.ERP).token()

    def test_that_the_service_does_not_know_is_refused(self, sandbox, tmp_path: Path):
        """As a wrong secret is."""
        pem = tmp_path / "application.pem"
        pem.write_bytes(a_certificate())
        settings = settings_of(sandbox, erp={"client_secret": None, "client_certificate_file": pem})

        with pytest.raises(SignInFailed):
            sign_in_for(settings, System.ERP).token()

    def test_without_its_key_is_a_wrong_setting(self, sandbox, tmp_path: Path):
        """A PEM file must hold both."""
        pem = tmp_path / "application.pem"
        pem.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
        settings = settings_of(sandbox, erp={"client_secret": None, "client_certificate_file": pem})

        with pytest.raises(SettingsError, match="private key") as fault:
            sign_in_for(settings, System.ERP)
        assert "CLIENT_CERTIFICATE_FILE" in fault.value.where


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"client_secret": None}, "CLIENT_SECRET"),
            ({"client_id": ""}, "CLIENT_ID"),
            ({"scope": ""}, "SCOPE"),
            ({"client_secret": None, "client_secret_file": Path("/nowhere/secret")}, "CLIENT_SECRET_FILE"),
        ],
    )
    def test_name_what_is_missing(self, change, named):
        """One coded error: what, where, what to do."""
        crm = {"base_url": "https://x", "scope": "s", "client_id": "c", "client_secret": "secret", **change}

        with pytest.raises(SettingsError) as fault:
            sign_in_for(Settings(crm=crm), System.CRM)
        assert fault.value.where == f"DRAWBAR_CRM__{named}"

    def test_of_the_company_are_needed_for_the_erp(self):
        """Every address of the ERP is below a company."""
        with pytest.raises(SettingsError, match="company_id"):
            adapter_for(Settings(), System.ERP)

    @pytest.mark.parametrize("url", ["", "crm.example", "ftp://crm.example"])
    def test_of_the_address_must_be_one(self, url):
        """A base_url that is none stops the start."""
        with pytest.raises(SettingsError, match="base_url"):
            open_http(Settings(crm={"base_url": url, "scope": "s", "client_id": "c", "client_secret": "s"}), System.CRM)

    @pytest.mark.parametrize(
        ("authority", "tenant", "expected"),
        [
            ("https://login.example/organizations", "t-1", "https://login.example/t-1"),
            ("https://login.example", "t-1", "https://login.example/t-1"),
            ("https://login.example/t-2/", "t-1", "https://login.example/t-2"),
            ("https://login.example/organizations", "", "https://login.example/organizations"),
        ],
    )
    def test_put_the_tenant_into_the_authority(self, authority, tenant, expected):
        """Where the address names one already, that one stands."""
        settings = Settings(sign_in={"authority": authority, "tenant_id": tenant})

        assert expected == authority_of(settings)


class TestExpiry:
    def test_of_a_token_is_met_by_a_fresh_one(self, sandbox):
        """A token withdrawn by the system costs one request, not a failure."""
        settings = settings_of(sandbox)
        http = open_http(settings, System.CRM)
        assert http.call("GET", "accounts?$top=1").status == 200
        control(sandbox, "expire", {})

        assert http.call("GET", "accounts?$top=1").status == 200
        http.close()


def control(info: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    import ssl

    request = urllib.request.Request(
        f"{info['control_url']}/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {info['control_token']}", "Content-Type": "application/json"},
        method="POST",
    )
    context = ssl.create_default_context(cafile=info["ca_file"])
    with urllib.request.urlopen(request, context=context) as reply:
        assert reply.status < 300


def a_sign_in(authority: str) -> SignIn:
    return SignIn(
        system=System.ERP,
        authority=authority,
        client_id="an-application",
        credential=SECRET,
        scope="https://x/.default",
        instance_discovery=False,
        ca_file=None,
    )


def a_certificate() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drawbar")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
