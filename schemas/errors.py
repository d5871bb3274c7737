"""Every error Drawbar raises or writes into a dead letter, drawn once.

::

    DrawbarError
    ├── ConfigError        DRW-1xxx  the start stops: settings or mapping files are wrong         (exit code 2)
    │   ├── SettingsError          1001  a setting is missing, unknown or of the wrong kind
    │   ├── MappingFileError       1002  a mapping file says what no mapping can say
    │   ├── MappingExampleFailed   1003  an example in a mapping file does not come out as written
    │   ├── UsageError             1004  a command was given what it cannot work with
    │   ├── MappingMismatch        1005  a mapping file says what the system does not have or does not take
    │   └── MappingIdle            1006  a key in a mapping file has no effect
    ├── AccessError        DRW-2xxx  a system does not let us in                                   (exit code 3)
    │   ├── SignInFailed           2001  no token: address, application, secret or certificate
    │   ├── TokenRefused           2002  the system refuses a fresh token
    │   ├── PrivilegeMissing       2003  signed in, but a right is missing
    │   ├── Unreachable            2004  no answer at all
    │   └── WebhookRefused         2005  a system does not take the registration of a webhook
    ├── RecordError        DRW-3xxx  this record cannot go on; its neighbours do: a dead letter
    │   ├── OwnerNotCoupled        3001  heals: couple the salesperson or user named
    │   ├── ReferenceNotCoupled    3002  heals: couple the record named
    │   ├── OptionNotCoupled       3003  heals: add the option to the mapping's table
    │   ├── UpdateConflict         3004  heals: replay with --use erp or --use crm
    │   ├── CounterpartDeleted     3005  heals: uncouple, restore or propagate
    │   ├── AlreadyCoupled         3006  heals: uncouple the other pair
    │   ├── AmbiguousMatch         3007  heals: couple one of the candidates by hand
    │   ├── RequiredFieldBlank     3008  heals: fill the field
    │   ├── ValueNotMappable       3009  heals: correct the value or the mapping
    │   ├── Undecodable            3010  heals: mend the reader, then replay the bytes
    │   └── MappingUnknown         3011  heals: bring the mapping back, then replay
    ├── SinkError          DRW-4xxx  a write did not come about
    │   ├── Rejected               4001  the target refuses the record: a dead letter
    │   ├── Throttled              4002  retriable: the target asks us to slow down
    │   ├── Unavailable            4003  retriable: the target is down, times out or answers nonsense
    │   ├── WriteForbidden         4004  the target refuses for a missing right: a dead letter
    │   └── KeyTaken               4005  the target says the key exists, and not by us: a dead letter
    ├── BusError           DRW-5xxx  Kafka
    │   ├── BusUnavailable         5001  no broker, and none can be had
    │   ├── BusStartFailed         5002  the broker started here died
    │   ├── TopicMismatch          5003  a topic differs from the table in what must not change
    │   ├── JarMismatch            5004  a jar is not the one that was pinned
    │   ├── BusUntrusted           5005  the TLS connection is refused, by us or by the broker
    │   ├── BusSignInRefused       5006  the broker refuses user and password
    │   ├── BusRightMissing        5007  signed in, but a right (ACL) is missing
    │   ├── RegistryUnavailable    5008  the schema registry does not answer
    │   ├── SchemaNotRegistered    5009  a schema that this process writes is not in the registry
    │   └── SchemaIncompatible     5010  the registry does not take the new version of a schema
    ├── CaptureError       DRW-6xxx  a source cannot be read
    │   ├── MassDelete             6001  too many deletes at once: capture of the entity stops until confirmed
    │   ├── PositionExpired        6002  retriable: the source forgot our position; a snapshot follows
    │   └── SourceBroken           6003  retriable: the source answers what it must not
    ├── DemoFailed             7001  the demo saw something that is not as it must be
    ├── BrakeError         DRW-8xxx  brakes
    │   ├── MassUpdate             8001  too many records at once: writing stops until somebody lets it happen
    │   └── BrakeNotConfirmed      8002  a process did not say that it keeps to a brake
    └── MappingsNotTaken       9001  a process did not say that it works by the mapping files that were applied

A code never changes its meaning. `retriable` says whether the same attempt may succeed without anybody acting.
"""

from __future__ import annotations

from typing import ClassVar


class DrawbarError(Exception):
    """Base of all. `str()` is fit for people: ids, fields and codes, never values of records or secrets."""

    code: ClassVar[str] = "DRW-0000"
    slug: ClassVar[str] = "error"
    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    next_step: ClassVar[str] = ""

    def __init__(self, message: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.todo = next_step or type(self).next_step

    def for_people(self) -> str:
        """Code, what, where and what to do, one line each."""
        lines = [f"{self.code} {self.message}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.todo:
            lines.append(f"  do:    {self.todo}")
        return "\n".join(lines)


class ConfigError(DrawbarError):
    code = "DRW-1000"
    slug = "config"
    exit_code = 2


class SettingsError(ConfigError):
    code = "DRW-1001"
    slug = "settings"
    next_step = "correct the setting; docs/settings.md lists all of them"


class MappingFileError(ConfigError):
    code = "DRW-1002"
    slug = "mapping-file"
    next_step = "correct the line named; docs/mappings.md lists all keys"


class MappingExampleFailed(ConfigError):
    code = "DRW-1003"
    slug = "mapping-example"
    next_step = "correct the example or the mapping"


class UsageError(ConfigError):
    code = "DRW-1004"
    slug = "usage"
    next_step = "see the command's --help"


class MappingMismatch(ConfigError):
    code = "DRW-1005"
    slug = "mapping-mismatch"
    next_step = "correct the mapping file, or the field in the system's own set-up"


class MappingIdle(ConfigError):
    code = "DRW-1006"
    slug = "mapping-idle"
    next_step = "take the key out, or write what it needs to have an effect"


class AccessError(DrawbarError):
    code = "DRW-2000"
    slug = "access"
    exit_code = 3


class SignInFailed(AccessError):
    code = "DRW-2001"
    slug = "sign-in-failed"
    next_step = "check authority, tenant, client id and secret or certificate of this system"


class TokenRefused(AccessError):
    code = "DRW-2002"
    slug = "token-refused"
    next_step = "check that the scope belongs to this system and that the application is registered in it"


class PrivilegeMissing(AccessError):
    code = "DRW-2003"
    slug = "privilege-missing"
    next_step = "give the application the role or permission set named in docs/operations.md"


class Unreachable(AccessError):
    code = "DRW-2004"
    slug = "unreachable"
    next_step = "check the address, the network and the certificate authority file"


class WebhookRefused(AccessError):
    code = "DRW-2005"
    slug = "webhook-refused"
    next_step = "see that capture listens and that the system reaches the address named; docs/webhooks.md"


class RecordError(DrawbarError):
    code = "DRW-3000"
    slug = "record"


class OwnerNotCoupled(RecordError):
    code = "DRW-3001"
    slug = "owner-not-coupled"
    next_step = "couple the missing salesperson to a user: drawbar couplings couple; the record then goes on by itself"


class ReferenceNotCoupled(RecordError):
    code = "DRW-3002"
    slug = "reference-not-coupled"
    next_step = "couple the missing record: drawbar couplings couple; the record then goes on by itself"


class OptionNotCoupled(RecordError):
    code = "DRW-3003"
    slug = "option-not-coupled"
    next_step = "add the option to the mapping's options table, then replay"


class UpdateConflict(RecordError):
    code = "DRW-3004"
    slug = "update-conflict"
    next_step = "choose a side: drawbar dead-letters replay --id ID --use erp (or crm)"


class CounterpartDeleted(RecordError):
    code = "DRW-3005"
    slug = "counterpart-deleted"
    next_step = (
        "drawbar dead-letters replay --id ID --use restore; that makes the deleted record again; "
        "--use uncouple keeps the record that is left, on its own; --use propagate deletes it, too"
    )


class AlreadyCoupled(RecordError):
    code = "DRW-3006"
    slug = "already-coupled"
    next_step = "uncouple the pair that holds the record, then couple again"


class AmbiguousMatch(RecordError):
    code = "DRW-3007"
    slug = "ambiguous-match"
    next_step = "couple the right candidate by hand: drawbar couplings couple; drawbar explain lists the candidates"


class RequiredFieldBlank(RecordError):
    code = "DRW-3008"
    slug = "required-field-blank"
    next_step = "fill the field in the source; the record then goes on by itself"


class ValueNotMappable(RecordError):
    code = "DRW-3009"
    slug = "value-not-mappable"
    next_step = "correct the value in the source, or the mapping, then replay"


class Undecodable(RecordError):
    code = "DRW-3010"
    slug = "undecodable"
    next_step = "see `drawbar dead-letters show`; once the reader can read it: drawbar dead-letters replay"


class MappingUnknown(RecordError):
    code = "DRW-3011"
    slug = "mapping-unknown"
    next_step = "bring the mapping file back, then replay"


class SinkError(DrawbarError):
    code = "DRW-4000"
    slug = "sink"


class Rejected(SinkError):
    code = "DRW-4001"
    slug = "rejected"
    next_step = "correct the record as the target's error code says; the next change goes on by itself, or replay"


class Throttled(SinkError):
    """The target asks us to slow down. The sink waits; the record is not at fault."""

    code = "DRW-4002"
    slug = "throttled"
    retriable = True

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"throttled, may retry in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class Unavailable(SinkError):
    code = "DRW-4003"
    slug = "unavailable"
    retriable = True


class WriteForbidden(SinkError):
    code = "DRW-4004"
    slug = "write-forbidden"
    next_step = "give the application the missing right in the target, then replay"


class KeyTaken(SinkError):
    code = "DRW-4005"
    slug = "key-taken"
    next_step = "couple the existing record by hand, or change the key in the source"


class BusError(DrawbarError):
    code = "DRW-5000"
    slug = "bus"
    exit_code = 3


class BusUnavailable(BusError):
    code = "DRW-5001"
    slug = "bus-unavailable"
    next_step = "start the system (drawbar up), or name a broker with --bus HOST:PORT"


class BusStartFailed(BusError):
    code = "DRW-5002"
    slug = "bus-start-failed"
    next_step = "read the broker's log named above"


class TopicMismatch(BusError):
    code = "DRW-5003"
    slug = "topic-mismatch"
    next_step = "the partition count of an installation is fixed; set DRAWBAR_BUS__PARTITIONS back, or start a new one"


class JarMismatch(BusError):
    code = "DRW-5004"
    slug = "jar-mismatch"
    next_step = "remove the cached jars and try again; if it persists, do not run them"


class BusUntrusted(BusError):
    code = "DRW-5005"
    slug = "bus-untrusted"
    next_step = "check DRAWBAR_BUS__CA_FILE, the client certificate, the host name, and that the port speaks TLS"


class BusSignInRefused(BusError):
    code = "DRW-5006"
    slug = "bus-sign-in-refused"
    next_step = "check DRAWBAR_BUS__SASL_MECHANISM, DRAWBAR_BUS__SASL_USERNAME and the password"


class BusRightMissing(BusError):
    code = "DRW-5007"
    slug = "bus-right-missing"
    next_step = "give the user the rights (ACLs) that docs/operations.md lists"


class RegistryUnavailable(BusError):
    code = "DRW-5008"
    slug = "registry-unavailable"
    next_step = "check DRAWBAR_REGISTRY__URL, user and password, and whether the registry runs"


class SchemaNotRegistered(BusError):
    code = "DRW-5009"
    slug = "schema-not-registered"
    next_step = "register what is written: drawbar schemas apply"


class SchemaIncompatible(BusError):
    code = "DRW-5010"
    slug = "schema-incompatible"
    next_step = "see drawbar schemas plan; readers of the topic must be told, and the subject's compatibility changed"


class CaptureError(DrawbarError):
    code = "DRW-6000"
    slug = "capture"


class MassDelete(CaptureError):
    code = "DRW-6001"
    slug = "mass-delete"
    next_step = "look: drawbar brakes show; if the deletes are meant: drawbar brakes release ENTITY"


class PositionExpired(CaptureError):
    code = "DRW-6002"
    slug = "position-expired"
    retriable = True


class SourceBroken(CaptureError):
    code = "DRW-6003"
    slug = "source-broken"
    retriable = True


class DemoFailed(DrawbarError):
    code = "DRW-7001"
    slug = "demo-failed"
    next_step = "run it again with --keep and look: drawbar status, drawbar explain"


class BrakeError(DrawbarError):
    code = "DRW-8000"
    slug = "brake"


class MassUpdate(BrakeError):
    code = "DRW-8001"
    slug = "mass-update"
    next_step = "look: drawbar brakes show; if the changes are meant: drawbar brakes release MAPPING:DIRECTION"


class BrakeNotConfirmed(BrakeError):
    code = "DRW-8002"
    slug = "brake-not-confirmed"
    next_step = "the brake is set, and holds as soon as the process reads it; see drawbar status for what it does"


class MappingsNotTaken(DrawbarError):
    code = "DRW-9001"
    slug = "mappings-not-taken"
    next_step = "see drawbar status for what these processes do; then give the command again, it goes on where it was"


def all_errors() -> tuple[type[DrawbarError], ...]:
    """Every class of the tree, parents first."""

    def below(cls: type[DrawbarError]) -> list[type[DrawbarError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in below(child))]

    return tuple(below(DrawbarError))


def by_code(code: str) -> type[DrawbarError]:
    """The class of a code. Raises KeyError for a code that is not in the tree."""
    return {error.code: error for error in all_errors()}[code]
