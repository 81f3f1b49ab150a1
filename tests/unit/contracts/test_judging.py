"""Each kind of change, made to the order platform's own documents: who breaks, and what is said of it.

Every change is made twice: to what the restaurant service receives and answers, and to what the order service
sends and is answered. The two break in opposite directions.
"""

from __future__ import annotations

import json

import pytest

from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.judging import Judge, LastRelease
from tests.unit.contracts.releases import (
    CREATE,
    Content,
    Edit,
    field_of,
    judged,
    last_release,
    next_release,
    schema_of,
)

RECEIVER = "restaurant_service"
SENDER = "order_service"
OPEN = "restaurant_service.open_ticket"

# ---- what is changed ------------------------------------------------------------------------------


def add_a_required_field(content: Content) -> None:
    ticket = schema_of(content, "CreateTicket")
    ticket["properties"]["table"] = {"type": "integer"}
    ticket["required"].append("table")


def add_an_optional_field(content: Content) -> None:
    schema_of(content, "CreateTicket")["properties"]["table"] = {"type": "integer", "default": 1}


def take_a_required_field_away(content: Content) -> None:
    ticket = schema_of(content, "CreateTicket")
    del ticket["properties"]["customer_id"]
    ticket["required"].remove("customer_id")


def make_a_field_optional(content: Content) -> None:
    schema_of(content, "CreateTicket")["required"].remove("customer_id")


def rename_a_field(content: Content) -> None:
    ticket = schema_of(content, "CreateTicket")
    ticket["properties"]["consumer_id"] = ticket["properties"].pop("customer_id")
    ticket["required"] = ["order_id", "consumer_id", "items"]


def change_a_type(content: Content) -> None:
    schema_of(content, "OrderItem")["properties"]["quantity"] = {"type": "string"}


def allow_null(content: Content) -> None:
    schema_of(content, "OrderItem")["properties"]["quantity"] = {
        "anyOf": [{"type": "integer"}, {"type": "null"}]
    }


def set_a_minimum(content: Content) -> None:
    field_of(content, "OrderItem.quantity")["exclusiveMinimum"] = 0


def set_a_length(content: Content) -> None:
    field_of(content, "OrderItem.name")["maxLength"] = 20


def list_the_values(content: Content) -> None:
    field_of(content, "OrderItem.name")["enum"] = ["pizza", "pasta"]


def set_a_format(content: Content) -> None:
    field_of(content, "OrderItem.name")["format"] = "date"


def set_a_keyword_that_nobody_knows(content: Content) -> None:
    field_of(content, "OrderItem.name")["max_digits"] = 4


def refuse_unknown_fields_and_drop_one(content: Content) -> None:
    take_a_required_field_away(content)
    schema_of(content, "CreateTicket")["additionalProperties"] = False


def require_a_header(content: Content) -> None:
    headers = content["components"]["messageTraits"]["command"]["headers"]
    headers["properties"]["tenant"] = {"type": "string"}
    headers["required"].append("tenant")


def stop_sending_a_header(content: Content) -> None:
    headers = content["components"]["messageTraits"]["command"]["headers"]
    headers["required"].remove("saga_not_after")
    del headers["properties"]["saga_not_after"]


def move_the_queue(content: Content) -> None:
    channel = content["channels"][CREATE]
    channel["address"] = channel["bindings"]["amqp"]["queue"]["name"] = "kitchen.commands"


def declare_the_queue_otherwise(content: Content) -> None:
    content["channels"][CREATE]["bindings"]["amqp"]["queue"]["durable"] = False


def rename_the_task(content: Content) -> None:
    content["components"]["messages"][CREATE]["headers"]["properties"]["task"]["const"] = "kitchen.open"


def write_it_otherwise(content: Content) -> None:
    content["components"]["messages"][CREATE]["contentType"] = "application/x-msgpack"


def move_the_correlation_id(content: Content) -> None:
    content["components"]["messages"][CREATE]["correlationId"] = {"location": "$message.header#/trace"}


def no_reply(content: Content) -> None:
    del content["operations"][f"{_action(content)}_{CREATE}"]["reply"]


def move_the_broker(content: Content) -> None:
    content["servers"]["rabbitmq"]["host"] = "other:5672"


def add_a_field_to_the_reply(content: Content) -> None:
    reply = schema_of(content, "TicketCreated")
    reply["properties"]["minutes"] = {"type": "integer"}
    reply["required"].append("minutes")


def take_the_field_of_the_reply_away(content: Content) -> None:
    reply = schema_of(content, "TicketCreated")
    reply["properties"], reply["required"] = {}, []


def remove_the_success(content: Content) -> None:
    _remove_reply(content, "success")


def remove_the_named_failure(content: Content) -> None:
    _remove_reply(content, "failure.RestaurantClosed")


def remove_the_operation(content: Content) -> None:
    del content["operations"][f"{_action(content)}_{CREATE}"]


def _action(content: Content) -> str:
    return "receive" if content["id"].endswith("restaurant_service") else "send"


def _remove_reply(content: Content, ending: str) -> None:
    key = f"{CREATE}.response.{ending}"
    del content["channels"][f"{CREATE}.replies"]["messages"][key]
    reply = content["operations"][f"{_action(content)}_{CREATE}"]["reply"]
    reply["messages"] = [one for one in reply["messages"] if not one["$ref"].endswith(key)]


# ---- what is said -----------------------------------------------------------------------------------

BREAKS_A_SENDER = [
    (
        add_a_required_field,
        "field-missing",
        "table",
        (
            f"A sender of the last release still sends {CREATE} without the field table; "
            "the new restaurant_service refuses it."
        ),
    ),
    (
        rename_a_field,
        "field-missing",
        "consumer_id",
        (
            f"A sender of the last release still sends {CREATE} without the field consumer_id; "
            "the new restaurant_service refuses it."
        ),
    ),
    (
        change_a_type,
        "type",
        "items[].quantity",
        (
            f"A sender of the last release still sends the field items[].quantity of {CREATE} as integer; "
            "the new restaurant_service takes only string."
        ),
    ),
    (
        set_a_minimum,
        "limits",
        "items[].quantity",
        (
            f"A sender of the last release still sends the field items[].quantity of {CREATE} as integer; "
            "the new restaurant_service takes only integer (more than 0)."
        ),
    ),
    (
        set_a_length,
        "limits",
        "items[].name",
        (
            f"A sender of the last release still sends the field items[].name of {CREATE} as string; "
            "the new restaurant_service takes only string (at most 20 characters)."
        ),
    ),
    (
        list_the_values,
        "values",
        "items[].name",
        (
            f"A sender of the last release may send string in the field items[].name of {CREATE}; "
            "the new restaurant_service takes only 'pizza' or 'pasta'."
        ),
    ),
    (
        set_a_format,
        "format",
        "items[].name",
        (
            f"A sender of the last release still sends the field items[].name of {CREATE} as string; "
            "the new restaurant_service takes only string (date)."
        ),
    ),
    (
        set_a_keyword_that_nobody_knows,
        "undecided",
        "items[].name",
        (
            "It cannot be told whether the new restaurant_service takes all that a sender of the last "
            "release may "
            f"send in the field items[].name of {CREATE}: the keyword max_digits."
        ),
    ),
    (
        refuse_unknown_fields_and_drop_one,
        "field-unknown",
        "customer_id",
        (
            f"A sender of the last release still sends {CREATE} with the field customer_id, which "
            "the new restaurant_service does not admit."
        ),
    ),
    (
        require_a_header,
        "field-missing",
        "tenant",
        (
            f"A sender of the last release still sends {CREATE} without the header tenant; "
            "the new restaurant_service refuses it."
        ),
    ),
    (
        move_the_queue,
        "queue-moved",
        "",
        (
            f"A sender of the last release still sends {CREATE} to restaurant_service.commands; "
            "the new restaurant_service takes it from kitchen.commands."
        ),
    ),
    (
        rename_the_task,
        "task-renamed",
        "task",
        (
            f"A sender of the last release still sends the task {CREATE}; "
            "the new restaurant_service knows it only as kitchen.open."
        ),
    ),
    (
        write_it_otherwise,
        "form",
        "",
        (
            f"A sender of the last release still sends {CREATE} with the content type application/json; "
            "the new restaurant_service takes it with application/x-msgpack."
        ),
    ),
    (
        move_the_correlation_id,
        "correlation-moved",
        "",
        (
            f"A sender of the last release still sends {CREATE} with its correlation id at "
            "$message.header#/id; "
            "the new restaurant_service looks for it at $message.header#/trace."
        ),
    ),
    (
        no_reply,
        "reply-removed",
        "",
        (
            f"The new restaurant_service does not answer {CREATE}; a sender of the last release waits for "
            "the answer "
            "until its step's timeout."
        ),
    ),
    (
        remove_the_operation,
        "receive-removed",
        "",
        (
            f"A sender of the last release still sends {CREATE} to restaurant_service.commands; "
            "the new restaurant_service does not take it."
        ),
    ),
    (
        take_the_field_of_the_reply_away,
        "field-missing",
        "ticket_id",
        (
            f"The new restaurant_service sends {CREATE}.response.success without the field ticket_id; "
            "an orchestrator of the last release cannot read it."
        ),
    ),
    (
        remove_the_success,
        "success-removed",
        "",
        (
            f"The new restaurant_service does not send {CREATE}.response.success; an orchestrator of the "
            "last release "
            "waits for it until its step's timeout, and then undoes the step."
        ),
    ),
]

BREAKS_A_RECEIVER = [
    (
        take_a_required_field_away,
        "field-missing",
        "customer_id",
        (
            f"The new order_service sends {CREATE} without the field customer_id; "
            "a receiver of the last release refuses it."
        ),
    ),
    (
        make_a_field_optional,
        "field-may-be-missing",
        "customer_id",
        (
            f"The new order_service may leave out the field customer_id of {CREATE}; "
            "a receiver of the last release requires it."
        ),
    ),
    (
        rename_a_field,
        "field-missing",
        "customer_id",
        (
            f"The new order_service sends {CREATE} without the field customer_id; "
            "a receiver of the last release refuses it."
        ),
    ),
    (
        change_a_type,
        "type",
        "items[].quantity",
        (
            f"The new order_service sends the field items[].quantity of {CREATE} as string; "
            "a receiver of the last release takes only integer."
        ),
    ),
    (
        allow_null,
        "type",
        "items[].quantity",
        (
            f"The new order_service sends the field items[].quantity of {CREATE} as null; "
            "a receiver of the last release takes only integer."
        ),
    ),
    (
        stop_sending_a_header,
        "field-missing",
        "saga_not_after",
        (
            f"The new order_service sends {CREATE} without the header saga_not_after; "
            "a receiver of the last release refuses it."
        ),
    ),
    (
        move_the_queue,
        "queue-moved",
        "",
        (
            f"The new order_service sends {CREATE} to kitchen.commands; "
            "a receiver of the last release takes it from restaurant_service.commands."
        ),
    ),
    (
        rename_the_task,
        "task-renamed",
        "task",
        (
            f"The new order_service sends the task kitchen.open; "
            f"a receiver of the last release knows it only as {CREATE}."
        ),
    ),
    (
        no_reply,
        "reply-removed",
        "",
        (
            f"A participant of the last release still answers {CREATE}; "
            "the new order_service does not take the answer."
        ),
    ),
    (
        add_a_field_to_the_reply,
        "field-missing",
        "minutes",
        (
            f"A participant of the last release still sends {CREATE}.response.success without the field "
            "minutes; "
            "the new order_service cannot read it."
        ),
    ),
    (
        remove_the_success,
        "message-not-taken",
        "",
        (
            f"A participant of the last release still sends {CREATE}.response.success; "
            f"the new order_service has no such message for {CREATE}."
        ),
    ),
]


@pytest.mark.parametrize(("edit", "code", "field", "what"), BREAKS_A_SENDER)
def test_it_breaks_who_still_sends_to_the_service(
    containing: Containing, edit: Edit, code: str, field: str, what: str
) -> None:
    found = [change for change in judged(containing, RECEIVER, edit) if change.breaking]

    assert what in [change.what for change in found]
    (change,) = (change for change in found if change.what == what)
    assert (change.code, change.field) == (code, field)
    assert change.breaks in ("senders of the last release", "orchestrators of the last release")
    assert change.instead


@pytest.mark.parametrize(("edit", "code", "field", "what"), BREAKS_A_RECEIVER)
def test_it_breaks_who_still_receives_from_the_service(
    containing: Containing, edit: Edit, code: str, field: str, what: str
) -> None:
    found = [change for change in judged(containing, SENDER, edit) if change.breaking]

    assert what in [change.what for change in found]
    (change,) = (change for change in found if change.what == what)
    assert (change.code, change.field) == (code, field)
    assert change.breaks in ("receivers of the last release", "participants of the last release")
    assert change.instead


@pytest.mark.parametrize(
    ("service", "edit"),
    [
        (RECEIVER, add_an_optional_field),
        (RECEIVER, take_a_required_field_away),  # it ignores what senders still send
        (RECEIVER, make_a_field_optional),
        (RECEIVER, allow_null),
        (RECEIVER, stop_sending_a_header),
        (RECEIVER, add_a_field_to_the_reply),
        (RECEIVER, remove_the_named_failure),
        (SENDER, add_a_required_field),  # a receiver ignores what it does not know
        (SENDER, add_an_optional_field),
        (SENDER, set_a_minimum),
        (SENDER, set_a_length),
        (SENDER, list_the_values),
        (SENDER, set_a_format),
        (SENDER, require_a_header),
        (SENDER, take_the_field_of_the_reply_away),
        (SENDER, remove_the_operation),
    ],
)
def test_it_breaks_nobody(containing: Containing, service: str, edit: Edit) -> None:
    assert [change.what for change in judged(containing, service, edit) if change.breaking] == []


def test_only_what_has_changed_is_told(containing: Containing) -> None:
    assert judged(containing, RECEIVER, lambda content: None) == []
    assert judged(containing, SENDER, lambda content: None) == []


@pytest.mark.parametrize("service", [RECEIVER, SENDER])
def test_who_is_not_redeployed_declares_the_queue_as_before(containing: Containing, service: str) -> None:
    (change,) = judged(containing, service, declare_the_queue_otherwise)

    assert (change.code, change.breaks) == (
        "queue-declared-otherwise",
        "senders and receivers of the last release",
    )
    assert "restaurant_service.commands with durable False" in change.what
    assert "with durable True: RabbitMQ refuses" in change.what


@pytest.mark.parametrize("service", [RECEIVER, SENDER])
def test_who_is_not_redeployed_is_at_the_broker_of_before(containing: Containing, service: str) -> None:
    (change,) = judged(containing, service, move_the_broker)

    assert change.code == "server-moved"
    assert "has the host 'other:5672' instead of" in change.what


@pytest.mark.parametrize(("service", "breaks"), [(RECEIVER, "senders"), (SENDER, "receivers")])
def test_a_channel_moves_to_another_of_the_brokers(containing: Containing, service: str, breaks: str) -> None:
    def add_a_broker(content: Content) -> None:
        content["servers"]["another"] = content["servers"]["rabbitmq"] | {"host": "another:5672"}

    def move(content: Content) -> None:
        content["channels"][CREATE]["servers"] = [{"$ref": "#/servers/another"}]

    (change,) = judged(containing, service, move, before=add_a_broker)

    assert (change.code, change.breaks) == ("server-moved", f"{breaks} of the last release")
    assert change.message == CREATE


def test_the_orchestrators_reply_queue_moves(containing: Containing) -> None:
    def move(content: Content) -> None:
        channel = content["channels"][f"{CREATE}.replies"]
        channel["address"] = channel["bindings"]["amqp"]["queue"]["name"] = "orders.replies"

    (change,) = judged(containing, SENDER, move)

    assert (change.code, change.breaks) == ("reply-queue-moved", "participants of the last release")
    assert f"The answers to {CREATE} go to orders.replies instead of" in change.what


def test_a_participant_looks_elsewhere_for_the_reply_queue(containing: Containing) -> None:
    def look_elsewhere(content: Content) -> None:
        content["operations"][f"receive_{CREATE}"]["reply"]["address"]["location"] = "$message.header#/answer"

    (change,) = judged(containing, RECEIVER, look_elsewhere)

    assert (change.code, change.breaks) == ("reply-queue-moved", "orchestrators of the last release")


# ---- failures -------------------------------------------------------------------------------------


def _another_failure(content: Content) -> None:
    closed, full = (f"{CREATE}.response.failure.{name}" for name in ("RestaurantClosed", "KitchenFull"))
    messages = content["components"]["messages"]
    messages[full] = json.loads(json.dumps(messages[closed]).replace("RestaurantClosed", "KitchenFull"))
    content["channels"][f"{CREATE}.replies"]["messages"][full] = {"$ref": f"#/components/messages/{full}"}
    content["operations"][f"{_action(content)}_{CREATE}"]["reply"]["messages"].append(
        {"$ref": f"#/channels/{CREATE}.replies/messages/{full}"}
    )


def test_a_new_failure_is_taken_as_any_failure_if_the_last_release_takes_any(containing: Containing) -> None:
    def closed(content: Content) -> None:
        del content["operations"][f"receive_{CREATE}"]["reply"]["messages"][2]  # the failure of any type

    found = judged(containing, RECEIVER, _another_failure)
    without = judged(containing, RECEIVER, _another_failure, before=closed)

    assert [(change.code, change.breaking) for change in found] == [("message-taken-as", False)]
    assert f"takes it as {CREATE}.response.failure." in found[0].what
    assert [(change.code, change.breaking) for change in without] == [("message-not-taken", True)]
    assert without[0].what == (
        f"The new restaurant_service sends {CREATE}.response.failure.KitchenFull; an orchestrator of the "
        "last "
        f"release has no such message for {CREATE}."
    )


# ---- operations -----------------------------------------------------------------------------------


def _renamed(content: Content) -> None:
    operation = content["operations"].pop(f"receive_{CREATE}")
    content["operations"]["receive_open_ticket"] = operation


def test_an_operations_name_is_not_on_the_wire(containing: Containing) -> None:
    assert judged(containing, RECEIVER, _renamed) == []


def test_a_task_that_is_called_otherwise_is_named(containing: Containing) -> None:
    def rename(content: Content) -> None:
        text = json.dumps(content)
        for before, after in (
            (f'"{CREATE}"', f'"{OPEN}"'),
            (f'/{CREATE}"', f'/{OPEN}"'),
            (f'_{CREATE}"', f'_{OPEN}"'),
        ):
            text = text.replace(before, after)
        content.clear()
        content.update(json.loads(text))

    found = {change.code: change for change in judged(containing, RECEIVER, rename)}

    assert set(found) == {"receive-removed", "receive-added"}
    assert found["receive-removed"].what.endswith(f"It looks as if it were called {OPEN} now.")
    assert "beside the new name" in found["receive-removed"].instead
    assert not found["receive-added"].breaking


def _begins_to_send(queue: str, task: str) -> Edit:
    def send(content: Content) -> None:
        content["channels"][task] = {
            "address": queue,
            "messages": {task: {"headers": {"type": "object"}, "payload": {"type": "array"}}},
        }
        content["operations"][f"send_{task}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{task}"},
        }

    return send


def test_a_command_that_its_receiver_does_not_know_yet_is_refused(containing: Containing) -> None:
    (change,) = judged(
        containing, SENDER, _begins_to_send("restaurant_service.commands", "restaurant_service.tip")
    )

    assert (change.code, change.breaks) == ("send-added", "receivers of the last release")
    assert change.what == (
        "The new order_service sends restaurant_service.tip to restaurant_service.commands; the service "
        "that takes "
        "from it does not know it in the last release, and refuses it."
    )


REVERSE = "accounting_service.reverse_authorization"


def _begins_to_reverse(content: Content) -> None:
    """Send what the orchestrator sends already."""
    sender = last_release()[SENDER].content
    for section in ("messages", "messageTraits", "schemas", "correlationIds"):
        content["components"].setdefault(section, {}).update(sender["components"].get(section, {}))
    for channel in (REVERSE, f"{REVERSE}.replies"):
        content["channels"][channel] = sender["channels"][channel]
    content["operations"][f"send_{REVERSE}"] = sender["operations"][f"send_{REVERSE}"]


def test_a_command_that_its_receiver_knows_already_breaks_nobody(containing: Containing) -> None:
    (change,) = judged(containing, "consumer_service", _begins_to_reverse)

    assert (change.code, change.breaking) == ("send-added", False)
    assert change.what.endswith("a service of the last release takes it.")


def test_a_new_sender_sends_what_its_receiver_of_the_last_release_takes(containing: Containing) -> None:
    def with_another_field(content: Content) -> None:
        _begins_to_reverse(content)
        fields = content["components"]["schemas"]["ReverseAuthorization"]
        content["components"]["schemas"]["ReverseAuthorization"] = json.loads(
            json.dumps(fields).replace("transaction_id", "authorization_id")
        )

    (change,) = (
        change
        for change in judged(containing, "consumer_service", with_another_field)
        if change.breaking and change.message == REVERSE
    )

    assert (change.code, change.field) == ("field-missing", "transaction_id")
    assert change.breaks == "receivers of the last release"


def test_what_a_sender_of_the_last_release_sends_in_fact_is_what_counts(containing: Containing) -> None:
    """Its receiver ignored the field so far."""

    def with_a_note(kind: str) -> Edit:
        return lambda content: schema_of(content, "CreateTicket")["properties"].update(note={"type": kind})

    others = [one for name, one in last_release().items() if name not in (SENDER, RECEIVER)]
    _, sender = next_release(SENDER, with_a_note("string"))

    def found(kind: str) -> list[tuple[str, str, str]]:
        old, new = next_release(RECEIVER, with_a_note(kind))
        judge = Judge(old, new, containing, LastRelease([*others, sender, old]))
        return [(one.code, one.message, one.field) for one in judge.changes()]

    assert found("string") == []
    assert ("type", CREATE, "note") in found("integer")


def test_of_a_queue_that_no_document_has_nothing_is_known(containing: Containing) -> None:
    (change,) = judged(containing, SENDER, _begins_to_send("celery", "shop.tasks.print_label"))

    assert not change.breaking
    assert "no document of the last release speaks of celery" in change.what


def test_who_begins_to_wait_for_answers_gets_none(containing: Containing) -> None:
    (change,) = judged(
        containing,
        SENDER,
        lambda content: content["operations"][f"send_{CREATE}"].update(
            reply={"channel": {"$ref": f"#/channels/{CREATE}.replies"}}
        ),
        before=no_reply,
    )

    assert (change.code, change.breaks) == ("reply-added", "participants of the last release")
    assert change.what == (
        f"The new order_service waits for an answer to {CREATE}; a participant of the last release sends "
        "none."
    )
