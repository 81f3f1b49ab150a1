"""A participant made from an AsyncAPI document, for a service that does not exist yet.

It is a `sagas_framework.participant.Participant` like any other, with an inbox, so that messages that come
twice, come late, undo or settle mean the same to it as to the real service. Only its handlers are
made up: they answer with examples, or as they are told. Extras: ``cli`` and ``asyncapi``.
"""
