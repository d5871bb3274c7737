"""What the settings of the bus are called in librdkafka. Pure but for the file that holds the password."""

from __future__ import annotations

from drawbar.settings import BusSettings, secret_of


def client_options(bus: BusSettings) -> dict[str, str]:
    """All that is set of the connection, secrets among it.

    Raises SettingsError when the file of the password cannot be read.
    """
    options = dict(bus.librdkafka)
    if bus.security_protocol == "plaintext":
        return options
    options["security.protocol"] = bus.security_protocol
    files = {
        "ssl.ca.location": bus.ca_file,
        "ssl.certificate.location": bus.client_certificate_file,
        "ssl.key.location": bus.client_key_file,
    }
    options |= {name: str(path) for name, path in files.items() if path is not None}
    if bus.client_key_password is not None:
        options["ssl.key.password"] = bus.client_key_password.get_secret_value()
    if bus.security_protocol.startswith("sasl_"):
        options |= {
            "sasl.mechanism": bus.sasl_mechanism,
            "sasl.username": bus.sasl_username,
            "sasl.password": secret_of(bus.sasl_password, bus.sasl_password_file, "bus.sasl_password"),
        }
    return options
