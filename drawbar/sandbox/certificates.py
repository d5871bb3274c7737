"""Certificates made at the first start: an authority, a server certificate under it, one for applications.

They stay in the state folder, so a client that trusts the authority keeps trusting it after a restart.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE_DAYS = 825  # what clients accept at most of a server certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    ca_file: Path
    server_key: Path
    server_chain: Path
    signing_key: Path  # signs the tokens of the sign-in
    app_key: Path  # an application's key and certificate, for sign-in by assertion
    app_certificate: Path


def ensure_certificates(folder: Path) -> Certificates:
    """Makes what is missing in `folder`; private keys are readable by the owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates = Certificates(
        ca_file=folder / "ca.pem",
        server_key=folder / "server-key.pem",
        server_chain=folder / "server.pem",
        signing_key=folder / "signing-key.pem",
        app_key=folder / "app-key.pem",
        app_certificate=folder / "app.pem",
    )
    if not (certificates.ca_file.exists() and certificates.server_chain.exists() and certificates.server_key.exists()):
        _make_server(certificates)
    if not certificates.signing_key.exists():
        _write_key(certificates.signing_key, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    if not (certificates.app_key.exists() and certificates.app_certificate.exists()):
        _make_app(certificates)
    return certificates


def _make_server(certificates: Certificates) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Drawbar sandbox authority")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    server = (
        _builder(_name("localhost"), ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(certificates.server_key, key)
    pem = serialization.Encoding.PEM
    certificates.server_chain.write_bytes(server.public_bytes(pem) + ca.public_bytes(pem))
    certificates.ca_file.write_bytes(ca.public_bytes(pem))


def _make_app(certificates: Certificates) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = _name("Drawbar sandbox application")
    certificate = _builder(name, name, key.public_key(), dt.datetime.now(dt.timezone.utc)).sign(key, hashes.SHA256())
    _write_key(certificates.app_key, key)
    certificates.app_certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # clocks of containers and their hosts differ
        .not_valid_after(now + dt.timedelta(days=LIFE_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
