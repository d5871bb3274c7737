"""The sign-in: OpenID discovery, keys and the token endpoint for client credentials, by secret or by certificate.

Error texts follow the AADSTS codes of Microsoft Entra.
"""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from drawbar.sandbox.certificates import Certificates
from drawbar.sandbox.clock import Clock
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import parse_options
from drawbar.sandbox.wire import Reply, Request, to_json

TOKEN_LIFE_S = 3599
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A registered application."""

    name: str
    client_id: str
    client_secret: str = field(repr=False)
    object_id: str


@dataclass(frozen=True, slots=True)
class Claims:
    app: str
    audience: str
    expires: float
    serial: int


class SignIn:
    """Issues tokens and checks them for the two systems."""

    system = "sign_in"

    def __init__(
        self,
        *,
        tenant_id: str,
        origin: str,
        applications: list[Application],
        audiences: list[str],
        certificates: Certificates,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self.tenant_id = tenant_id
        self.authority = f"{origin}/{tenant_id}"
        self.issuer = f"{self.authority}/v2.0"
        self._applications = {application.client_id: application for application in applications}
        self._audiences = audiences
        key = serialization.load_pem_private_key(certificates.signing_key.read_bytes(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the signing key is no RSA key")
        self._key = key
        numbers = key.public_key().public_numbers()
        self._key_id = _base64url(numbers.n.to_bytes(256, "big"))[:27]
        self._jwk = {
            "kty": "RSA",
            "use": "sig",
            "kid": self._key_id,
            "n": _base64url(numbers.n.to_bytes(256, "big")),
            "e": _base64url(numbers.e.to_bytes(3, "big")),
            "alg": "RS256",
        }
        app_key = x509.load_pem_x509_certificate(certificates.app_certificate.read_bytes()).public_key()
        if not isinstance(app_key, rsa.RSAPublicKey):
            raise TypeError("the application's certificate holds no RSA key")
        self._app_key = app_key
        self._known: dict[str, Claims] = {}
        self._valid_from = 0

    # ------------------------------------------------------------ for the systems

    def claims(self, request: Request) -> Claims | None:
        """Of the bearer token, when it was signed here; neither audience nor expiry is looked at."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        known = self._known.get(token)
        if known is not None:
            return known
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                # The times in it are the sandbox's, which need not be this machine's.
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            return None
        known = Claims(claims["appid"], claims["aud"], claims["exp"], int(claims["uti"]))
        if len(self._known) > 1000:  # tokens nobody uses any more
            self._known.clear()
        self._known[token] = known
        return known

    def admitted(self, request: Request, audience: str) -> str | None:
        """Client id when the token is good for `audience` now."""
        claims = self.claims(request)
        if (
            claims is None
            or claims.audience != audience
            or claims.expires <= self._clock.now_s()
            or claims.serial <= self._valid_from
        ):
            return None
        return claims.app

    def expire_tokens(self) -> None:
        """Every token issued so far is refused from now on."""
        self._valid_from = time.time_ns()

    # ------------------------------------------------------------ as a service

    def caller(self, request: Request) -> str | None:
        if request.method != "POST":
            return None
        return parse_options(request.body.decode("utf-8", "replace")).get("client_id")

    def target(self, request: Request) -> str:
        return request.path.rstrip("/").rpartition("/")[2]

    def refused(self, request: Request, refusal: Refusal) -> Reply:  # noqa: ARG002 - the sign-in has no limits
        return self.failed(request)

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        return _json(500, {"error": "server_error", "error_description": "AADSTS90000: the sandbox failed"})

    def handle(self, request: Request) -> Reply:
        tenant, _, rest = request.path.lstrip("/").partition("/")
        if tenant != self.tenant_id:
            return _error(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        match request.method, rest:
            case "GET", "v2.0/.well-known/openid-configuration":
                return _json(200, self._discovery())
            case "GET", "discovery/v2.0/keys":
                return _json(200, {"keys": [self._jwk]})
            case "POST", "oauth2/v2.0/token":
                form = parse_options(request.body.decode("utf-8", "replace"))
                return self._token({**form, **_in_header(request.headers.get("authorization", ""))})
            case _:
                return _json(404, {"error": "not_found", "error_description": "no such address"})

    def _discovery(self) -> dict[str, Any]:
        return {
            "token_endpoint": f"{self.authority}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
            "jwks_uri": f"{self.authority}/discovery/v2.0/keys",
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.authority}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{self.authority}/oauth2/v2.0/devicecode",
            "response_types_supported": ["code", "id_token"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "grant_types_supported": ["client_credentials"],
            "claims_supported": ["aud", "appid", "exp", "iat", "iss", "nbf", "oid", "tid", "ver"],
            "tenant_region_scope": None,
        }

    def _token(self, form: dict[str, str]) -> Reply:
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        application = self._applications.get(form.get("client_id", ""))
        if application is None:
            return _error(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{form.get('client_id', '')}' was not found in the directory.",
            )
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION or not self._assertion_holds(
                form["client_assertion"], application
            ):
                return _error(
                    401,
                    "invalid_client",
                    700027,
                    "The certificate with identifier used to sign the client assertion"
                    " is not registered on application.",
                )
        elif not hmac.compare_digest(form.get("client_secret", "").encode(), application.client_secret.encode()):
            return _error(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret"
                f" value, not the client secret ID, for a secret added to app '{application.client_id}'.",
            )
        scope = form.get("scope", "")
        if not scope.endswith("/.default"):
            return _error(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value"
                " with /.default suffixed to the resource identifier (application ID URI).",
            )
        audience = scope.removesuffix("/.default").rstrip("/")
        if audience not in self._audiences:
            return _error(
                400,
                "invalid_resource",
                500011,
                f"The resource principal named {audience} was not found in the tenant.",
            )
        return _json(
            200,
            {
                "token_type": "Bearer",
                "expires_in": TOKEN_LIFE_S,
                "ext_expires_in": TOKEN_LIFE_S,
                "access_token": self.issue(application, audience),
            },
        )

    def issue(self, application: Application, audience: str, *, life_s: float = TOKEN_LIFE_S) -> str:
        now = self._clock.now_s()
        return jwt.encode(
            {
                "aud": audience,
                "iss": self.issuer,
                "iat": int(now),
                "nbf": int(now),
                "exp": int(now + life_s),
                "appid": application.client_id,
                "app_displayname": application.name,
                "appidacr": "1",
                "idtyp": "app",
                "oid": application.object_id,
                "sub": application.object_id,
                "tid": self.tenant_id,
                "uti": str(time.time_ns()),
                "ver": "1.0",
            },
            self._key,
            algorithm="RS256",
            headers={"kid": self._key_id},
        )

    def _assertion_holds(self, assertion: str, application: Application) -> bool:
        try:
            claims = jwt.decode(
                assertion,
                self._app_key,
                algorithms=["RS256", "PS256"],
                audience=[f"{self.authority}/oauth2/v2.0/token", self.issuer],
                issuer=application.client_id,
            )
        except jwt.PyJWTError:
            return False
        return bool(claims.get("sub") == application.client_id)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(status: int, body: Any) -> Reply:
    return Reply(
        status, to_json(body), {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    )


def _in_header(authorization: str) -> dict[str, str]:
    """Id and secret of an application as RFC 6749, section 2.3.1, has them in the header; none where there are none."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return {}
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return {}
    return {"client_id": unquote_plus(client_id), "client_secret": unquote_plus(secret)}


def _error(status: int, error: str, number: int, text: str) -> Reply:
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    timestamp = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    return _json(
        status,
        {
            "error": error,
            "error_description": f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation}"
            f" Timestamp: {timestamp}",
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        },
    )
