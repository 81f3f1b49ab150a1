"""What a service says of itself, from which its document is made."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

from sagas_framework.asyncapi.checking import misfit_examples
from sagas_framework.asyncapi.document import document
from sagas_framework.asyncapi.exchanges import received, sent
from sagas_framework.asyncapi.rendering import to_json, to_yaml
from sagas_framework.asyncapi.servers import servers, virtual_host
from sagas_framework.asyncapi.signals import awaited
from sagas_framework.errors import DefinitionError
from sagas_framework.events import events_of
from sagas_framework.participant import Participant
from sagas_framework.sagas import Sagas
from sagas_framework.subscriber import Subscriber

_SEMVER: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[\w.-]+)?(\+[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Contact:
    """Whom to ask about a service."""

    name: str
    url: str
    email: str


@dataclass(frozen=True)
class License:
    """Under which terms a service may be used."""

    name: str
    url: str


class Specification:
    """The AsyncAPI document of one service: what it can be asked, and what its sagas ask of others.

    Args:
        service: its name.
        title: its name for people.
        version: of what it says to others, as semantic versioning has it: a change that breaks those who
            are not deployed again is a new major version.
        description: what it is for; CommonMark.
        broker: the broker's address. Hosts and virtual host are documented, credentials are not.
        receives: the participant that serves its commands.
        sends: its sagas.
        subscribes: its subscriber. What it publishes needs no mention: it is the events of this service that
            its contracts declare.

    Raises:
        DefinitionError: something is missing or does not fit together.
    """

    def __init__(
        self,
        service: str,
        *,
        title: str,
        version: str,
        description: str,
        contact: Contact,
        license: License,
        broker: str,
        receives: Participant | None = None,
        sends: Sagas | None = None,
        subscribes: Subscriber | None = None,
    ) -> None:
        if receives is None and sends is None and subscribes is None and not events_of(service):
            raise DefinitionError(
                f"The specification of {service} describes nothing: "
                "give it receives=participant, sends=sagas, subscribes=subscriber, or several of them."
            )
        for whose, what in (
            (receives and receives.service.name, "receives"),
            (sends and sends.service, "sends"),
            (subscribes and subscribes.service.name, "subscribes"),
        ):
            if whose not in (None, service):
                raise DefinitionError(
                    f"The specification of {service} was given {what}= of {whose}: each service has its own."
                )
        if not _SEMVER.fullmatch(version):
            raise DefinitionError(
                f"The specification of {service} has the version {version!r}: write it like 1.0.0."
            )
        for name, text in {"title": title, "description": description}.items():
            if not text.strip():
                raise DefinitionError(f"The specification of {service} has no {name}: write {name}='...'.")
        self.service = service
        self.title = title
        self.version = version
        self.description = description
        self.contact = contact
        self.license = license
        self.receives = receives
        self.sends = sends
        self.subscribes = subscribes
        self._broker = broker

    @cached_property
    def document(self) -> dict[str, Any]:
        """The document as plain JSON types, made when it is first asked for.

        Raises:
            DefinitionError: a message has no JSON schema or no example, or travels otherwise than its schema
                says; it names the class or the message.
            ConfigurationError: the broker's address cannot be read.
        """
        made = document(
            {
                "title": self.title,
                "version": self.version,
                "description": self.description,
                "contact": asdict(self.contact),
                "license": asdict(self.license),
            },
            identifier=f"urn:service:{self.service}",
            servers=servers(self._broker),
            virtual_host=virtual_host(self._broker),
            receives=received(self.receives.handlings.values()) if self.receives else [],
            sends=sent(self.sends.definitions) if self.sends else [],
            reply_queue=self.sends.reply_queue if self.sends else None,
            publishes=events_of(self.service),
            subscribes=self.subscribes.events if self.subscribes else [],
            event_queue=self.subscribes.queue if self.subscribes else None,
            awaits=awaited(self.sends.definitions) if self.sends else [],
        )
        # Examples are written by what writes the messages, so this is a schema that says something else.
        for problem in misfit_examples(made):
            raise DefinitionError(
                f"The document of {self.service} would not be true of what travels: {problem}. Leave out the "
                "serializer that writes a field otherwise, or say what it writes: "
                "Annotated[..., WithJsonSchema({...})]."
            )
        return made

    def yaml(self) -> str:
        """The document as YAML, byte-identical from build to build."""
        return to_yaml(self.document)

    def json(self) -> str:
        """The document as JSON, byte-identical from build to build."""
        return to_json(self.document)
