"""Sends the spans of a run to Phoenix, a receiver that others made, and reads them there.

The run takes two turns and calls one tool; its worker is killed in the second turn, and another one takes it over.
Started by `scripts/observe --traces`. Writes nothing outside target/observe.
"""

import json
import os
import shutil
import signal
import sys
import threading

import observe_stack
from observe_load import Clients
from observe_stack import WORK, Part, free_port, request, wait_for
from observe_upstream import MODEL

REQUEST = "POST /v1/chat/completions"


class Phoenix(Part):
    def __init__(self, program):
        port, self.folder = free_port(), WORK / "phoenix-data"
        # The spans of an earlier run.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.url = f"http://127.0.0.1:{port}"
        super().__init__("phoenix", [program, "serve"], {
            "PATH": os.environ["PATH"],
            "HOME": str(WORK),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(self.folder),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        })

    def answers(self):
        return request(f"{self.url}/healthz", patience=5)[0] == 200

    def spans(self):
        """Returns all spans of its only project."""
        status, text = request(f"{self.url}/v1/projects/default/spans?limit=1000")
        if status != 200:
            raise SystemExit(f"Phoenix: {status} {text}")
        return json.loads(text)["data"]


def check(spans, killed, taken_over_by):
    """Finds what Phoenix does not know of the run."""
    def named(name):
        return [span for span in spans if span["name"] == name]

    def value(span, name):
        return span["attributes"].get(name)

    counts = {
        REQUEST: 1, "accept": 1, "queue": 2, "attempt": 1, f"chat {MODEL}": 2, "execute_tool calculator": 1,
        "commit": 3,
    }
    for name, count in counts.items():
        if len(named(name)) != count:
            yield f"{name}: {len(named(name))} spans, not {count}"
            return
    (root,), (accept,), (attempt,) = (named(name) for name in (REQUEST, "accept", "attempt"))
    (tool,) = named("execute_tool calculator")
    ids = {span["context"]["span_id"] for span in spans}
    turns = sorted(named(f"chat {MODEL}"), key=lambda span: span["start_time"])
    first, last = turns
    if len({span["context"]["trace_id"] for span in spans}) != 1:
        yield "there are several traces"
    for child, parent in ((accept, root), (attempt, accept), (last, attempt)):
        if child["parent_id"] != parent["context"]["span_id"]:
            yield f"the parent of {child['name']} is not {parent['name']}"
    if root["parent_id"] in ids:
        yield "the request has a parent"
    if tool["parent_id"] != first["parent_id"] or tool["parent_id"] in ids:
        yield "the tool is not of the killed worker's attempt, which left no span"
    for turn in turns:
        for name, expected in (
            ("gen_ai.request.model", MODEL), ("gen_ai.usage.input_tokens", 40), ("gen_ai.usage.output_tokens", 9),
            ("gen_ai.usage.cache_read.input_tokens", 16),
        ):
            if value(turn, name) != expected:
                yield f"{name} of a turn is {value(turn, name)}, not {expected}"
    if value(tool, "gen_ai.tool.name") != "calculator":
        yield f"gen_ai.tool.name is {value(tool, 'gen_ai.tool.name')}"
    if value(attempt, "baton.attempt") != 2 or value(attempt, "baton.attempt.ending") != "completed":
        yield f"the attempt is {attempt['attributes']}"
    print(f"one trace of {len(spans)} spans: begun by {killed}, ended by {taken_over_by}")
    for span in sorted(spans, key=lambda span: span["start_time"]):
        tokens = value(span, "gen_ai.usage.output_tokens")
        print(f"  {span['name']}" + (f", {tokens} tokens" if tokens else ""))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    phoenix = Phoenix(sys.argv[1])
    stack = observe_stack.from_devstack(
        OTEL_EXPORTER_OTLP_ENDPOINT=phoenix.url, OTEL_BSP_SCHEDULE_DELAY="100",
    )
    phoenix.start()
    try:
        wait_for("Phoenix", phoenix.answers, 180)
        with stack.running():
            first, second, third = stack.of("worker")
            second.end()
            third.end()
            clients = Clients(stack)
            stack.upstream.hold()
            chat = threading.Thread(target=clients.ask, args=["Use the calculator."], daemon=True)
            chat.start()
            # The first turn and the tool are recorded; the second turn is held after its first word.
            wait_for("the second turn", lambda: len([s for s in phoenix.spans() if s["name"] == "commit"]) == 2)
            first.kill()
            stack.start(second)
            stack.upstream.release()
            wait_for("the attempt that ends the run", lambda: any(s["name"] == "attempt" for s in phoenix.spans()))
            chat.join(60)
            wait_for("the request", lambda: any(s["name"] == REQUEST for s in phoenix.spans()))
            spans = [span for span in phoenix.spans() if not span["name"].startswith("GET ")]
            problems = list(check(spans, first.name, second.name))
    finally:
        phoenix.end(patience=10)
    print(f"{len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
