"""The saga on Restate: an ASGI app for each role, which is ``BENCHMARK_ROLE``, one of the keys at the end."""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import os

import restate
from restate.exceptions import TerminalError

ROLE = os.environ["BENCHMARK_ROLE"]

consumer = restate.Service("Consumer")
restaurant = restate.Service("Restaurant")
accounting = restate.Service("Accounting")
order = restate.Service("CreateOrder")
local = restate.Service("CreateOrderLocal")


def order_status(saga, status):
    return {**saga, "status": status}


def verify_consumer(saga):
    return {"ok": True}


def open_ticket(saga):
    return {"ticket_id": saga["id"] + 1000}


def authorize_card(saga):
    if saga["amount"] >= 50:
        raise TerminalError("card declined")
    return {"transaction_id": 7}


def close_ticket(saga):
    return {"ok": True}


# ---- in four services -----------------------------------------------------------------------------


@consumer.handler()
async def verify(ctx: restate.Context, saga: dict) -> dict:
    return verify_consumer(saga)


@restaurant.handler()
async def create_ticket(ctx: restate.Context, saga: dict) -> dict:
    return open_ticket(saga)


@restaurant.handler()
async def approve_ticket(ctx: restate.Context, saga: dict) -> dict:
    return close_ticket(saga)


@restaurant.handler()
async def reject_ticket(ctx: restate.Context, saga: dict) -> dict:
    return close_ticket(saga)


@accounting.handler()
async def authorize(ctx: restate.Context, saga: dict) -> dict:
    return authorize_card(saga)


@order.handler(name="run")
async def run(ctx: restate.Context, saga: dict) -> str:
    saga = await ctx.run_typed("create_order", order_status, saga=saga, status="pending")
    undo = []
    try:
        await ctx.service_call(verify, saga)
        saga = {**saga, **await ctx.service_call(create_ticket, saga)}
        undo.append(reject_ticket)
        saga = {**saga, **await ctx.service_call(authorize, saga)}
        await ctx.service_call(approve_ticket, saga)
    except TerminalError:
        for compensation in reversed(undo):
            await ctx.service_call(compensation, saga)
        await ctx.run_typed("reject_order", order_status, saga=saga, status="rejected")
        return "rejected"
    await ctx.run_typed("approve_order", order_status, saga=saga, status="approved")
    return "approved"


# ---- in one ---------------------------------------------------------------------------------------


@local.handler(name="run")
async def run_local(ctx: restate.Context, saga: dict) -> str:
    saga = await ctx.run_typed("create_order", order_status, saga=saga, status="pending")
    undo = []
    try:
        await ctx.run_typed("verify", verify_consumer, saga=saga)
        saga = {**saga, **await ctx.run_typed("create_ticket", open_ticket, saga=saga)}
        undo.append(close_ticket)
        saga = {**saga, **await ctx.run_typed("authorize", authorize_card, saga=saga)}
        await ctx.run_typed("approve_ticket", close_ticket, saga=saga)
    except TerminalError:
        for compensation in reversed(undo):
            await ctx.run_typed("reject_ticket", compensation, saga=saga)
        await ctx.run_typed("reject_order", order_status, saga=saga, status="rejected")
        return "rejected"
    await ctx.run_typed("approve_order", order_status, saga=saga, status="approved")
    return "approved"


_SERVICES = {
    "order": [order, local],
    "consumer": [consumer],
    "restaurant": [restaurant],
    "accounting": [accounting],
}
app = restate.app(services=_SERVICES[ROLE])
