"""A message of the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.samples import Example

Schemas = Mapping[type[BaseModel], Schema]


@dataclass(frozen=True)
class Described:
    """A message of the document.

    Args:
        key: its name there. Several failures share one task, so this is not always the task's name.
        task: the Celery task's name, as its header says it.
        headers: what it says of headers beyond its trait.
    """

    key: str
    task: str
    title: str
    summary: str
    description: str
    tag: str
    trait: str
    payload: Schema
    examples: Sequence[Example]
    headers: Mapping[str, Schema] = field(default_factory=dict)

    def to_json(self) -> Schema:
        """The Message Object."""
        return {
            "name": self.key,
            "title": self.title,
            "summary": self.summary,
            **({"description": self.description} if self.description else {}),
            "tags": [{"name": self.tag}],
            "contentType": "application/json",
            "correlationId": {"$ref": f"#/components/correlationIds/{celery.correlation(self.trait)}"},
            "headers": {"type": "object", "properties": {"task": {"const": self.task}, **self.headers}},
            "payload": self.payload,
            "traits": [{"$ref": f"#/components/messageTraits/{self.trait}"}],
            "examples": [each.to_json() for each in self.examples],
        }
