"""Submits a run over NATS and prints its answer as it comes.

Messages are published plainly: `js.publish` and `request` of the library never get an answer from Baton,
which answers on subjects of the run's own.

    NATS_URL=nats://… BATON_API_KEY=bt_… BATON_KEY_ID=… BATON_TENANT=… python run.py MODEL INPUT [--cancel]

The key's id and its tenant's are `id` and `tenant` of `GET /v1/auth/me`.

With --cancel the run is cancelled after its first words. Should it wait for a person's decision about
a call that may have been made already, the call is given up: --decide retry makes it again instead.

Needs nats-py (see requirements.txt).
"""

import argparse
import asyncio
import json
import os
import sys
import time
import uuid

import nats
from nats.errors import TimeoutError as NothingHeard

# A used-up budget says to come back next month.
PATIENCE = 60
ENDS = {"run.completed", "run.failed", "run.cancelled"}


class Refused(Exception):
    """Baton has answered, and said no."""


def uuid7():
    """A time-ordered UUID; `uuid.uuid7()` from Python 3.14 on."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


class Run:
    """One run: its id is drawn here, before there is anything on the server."""

    def __init__(self, connection, tenant, key_id):
        self.connection, self.tenant, self.id = connection, tenant, uuid7()
        # The key may publish under its own id, and nothing else may.
        self.sender = f"{tenant}.{key_id}"

    async def listen(self):
        """Before anything is asked, so that no answer and no event is missed."""
        about = f"{self.tenant}.{self.id}"
        self.replies = await self.connection.subscribe(f"replies.{about}")
        self.past = await self.connection.subscribe(f"past.{about}")
        self.live = await self.connection.subscribe(f"live.{about}")

    async def ask(self, subject, message, answers):
        """Publishes until there is an answer: what was lost is said again, and does no harm."""
        while True:
            request_id = str(uuid.uuid4())
            message = {"v": 1, "run_id": self.id, **message, "request_id": request_id}
            await self.connection.publish(subject, json.dumps(message).encode())
            try:
                while True:
                    answer = json.loads((await answers.next_msg(timeout=5)).data)
                    if answer.get("request_id") == request_id:
                        break
            except NothingHeard:
                continue
            if answer["ok"]:
                return answer
            error = answer["error"]
            if error.get("retry_after", PATIENCE + 1) > PATIENCE:
                raise Refused(f"{error['code']}: {error['message']}")
            await asyncio.sleep(error["retry_after"])

    async def submit(self, request, lane="interactive"):
        message = {"kind": "submit", "request": request}
        return await self.ask(f"jobs.{self.sender}.{lane}", message, self.replies)

    async def control(self, verb, **fields):
        return await self.ask(f"control.{self.sender}.{verb}", fields, self.replies)

    async def events(self):
        """Every event once, in order, to the last: live ones, and what was missed from history."""
        last, missing = 0, True
        while True:
            if missing:
                subject = f"history.{self.sender}"
                page = await self.ask(subject, {"after": last}, self.past)
                for event in page["events"]:
                    last = event["id"]
                    yield event
                if page["done"]:
                    return
                missing = page["next_after"] is not None
                continue
            try:
                message = await self.live.next_msg(timeout=5)
            except NothingHeard:
                missing = True  # A lost last event leaves no gap.
                continue
            for event in map(json.loads, message.data.splitlines()):
                if event["id"] <= last:
                    continue
                if event["prev"] != last:
                    missing = True
                    break
                last = event["id"]
                yield event
                if event["type"] in ENDS:
                    return


async def main(options):
    tenant = os.environ["BATON_TENANT"]
    connection = await nats.connect(
        os.environ["NATS_URL"],
        token=os.environ["BATON_API_KEY"],
        inbox_prefix=f"_INBOX_{tenant}",
    )
    run = Run(connection, tenant, os.environ["BATON_KEY_ID"])
    await run.listen()
    await run.submit({"model": options.model, "input": options.input})
    cancelled = False
    async for event in run.events():
        kind, data = event["type"], event["data"]
        if kind == "text.delta":
            print(data["text"], end="", flush=True)
            if options.cancel and not cancelled:
                cancelled = True
                await run.control("cancel", reason="heard enough")
        elif kind == "attempt.reset" and not data["continues"]:
            print("\n[what came after event", data["resume_after"], "is withdrawn]")
        elif kind == "approval.requested":
            print(f"[was {data['name']}({data['arguments']}) done? {options.decide}]", flush=True)
            await run.control("decide", approval_id=data["approval_id"], decision=options.decide)
        elif kind in ENDS:
            print(f"\n[{run.id} {kind}]")
    await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("--cancel", action="store_true")
    parser.add_argument("--decide", choices=["retry", "fail"], default="fail")
    try:
        asyncio.run(main(parser.parse_args()))
    except Refused as refused:
        sys.exit(f"refused: {refused}")
