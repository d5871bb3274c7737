"""An Apache Kafka that wants TLS, a sign-in and rights, with an authority of its own, for the tests of these."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drawbar.bus.apache import HOST, ApacheKafka, broker_settings, free_port

PASSWORDS = {"drawbar": "crossing-the-bar", "guest": "only-looking"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureKafka:
    """`secure` speaks SASL_SSL, `mutual` TLS with certificates on both sides; the plain listener is the tests' own."""

    apache: ApacheKafka
    secure: str
    mutual: str
    ca_file: Path
    client_certificate_file: Path
    client_key_file: Path
    other_ca_file: Path

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.apache.bootstrap_servers, "log_level": 0})

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Give a user rights on what is called `name`, or on all with `*`."""
        acls = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = self.admin()  # it has to outlive its answers
        for answer in admin.create_acls(acls).values():
            answer.result(20)


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """Its users are those of PASSWORDS, by PLAIN and by SCRAM; `drawbar` may do everything, `guest` nothing yet."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, other = Authority("drawbar tests"), Authority("somebody else")
    ca_file, other_ca_file = folder / "ca.pem", folder / "other-ca.pem"
    ca_file.write_text(authority.certificate_pem)
    other_ca_file.write_text(other.certificate_pem)
    key, certificate = authority.issue("localhost")
    (folder / "broker.pem").write_text(key + certificate)
    client_key, client_certificate = authority.issue("drawbar")
    (folder / "client.key").write_text(client_key)
    (folder / "client.pem").write_text(client_certificate)
    port, secure, mutual = free_port(), free_port(), free_port()
    with ApacheKafka.start(
        folder / "kafka", port=port, heap_mb=256, overrides=_settings(folder, port=port, secure=secure, mutual=mutual)
    ) as apache:
        kafka = SecureKafka(
            apache=apache,
            secure=f"{HOST}:{secure}",
            mutual=f"{HOST}:{mutual}",
            ca_file=ca_file,
            client_certificate_file=folder / "client.pem",
            client_key_file=folder / "client.key",
            other_ca_file=other_ca_file,
        )
        _make_scram_users(kafka.admin())
        yield kafka


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate_pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, name: str) -> tuple[str, str]:
        """A private key and its certificate, for 127.0.0.1 and `name`, both in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(HOST))])
        certificate = _builder(subject, self._name, key).add_extension(names, critical=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signed = certificate.sign(self._key, hashes.SHA256())
        return pem.decode(), signed.public_bytes(serialization.Encoding.PEM).decode()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _settings(folder: Path, *, port: int, secure: int, mutual: int) -> Mapping[str, str]:
    usual = broker_settings(port=port, controller_port=port, log_dirs="")
    listeners = f"CLIENTS://{HOST}:{port},SECURE://{HOST}:{secure},MUTUAL://{HOST}:{mutual}"
    controller_port = free_port()
    users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
    settings = {
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller_port}",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": usual["listener.security.protocol.map"] + ",SECURE:SASL_SSL,MUTUAL:SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # who comes by the plain listener has no name; it is the broker itself and the tests
        "super.users": "User:ANONYMOUS;User:drawbar;User:CN=drawbar",
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
    }
    for mechanism in ("scram-sha-256", "scram-sha-512"):
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        settings[f"listener.name.secure.{mechanism}.sasl.jaas.config"] = login
    return settings


def _make_scram_users(admin: AdminClient) -> None:
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # a user once a request
        wanted = [
            UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4096), password.encode())
            for name, password in PASSWORDS.items()
        ]
        for answer in admin.alter_user_scram_credentials(wanted).values():
            answer.result(20)
