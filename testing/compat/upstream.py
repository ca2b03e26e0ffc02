"""An OpenAI-compatible upstream that does what the model's name says. Prints its port.

The name's first word, up to `-`, is the behaviour; a number behind it says how often (`limited-1`
refuses once). What follows makes the name a test's own, so that tests do not count each other's.
"""

import json
import select
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# `closed_early`: the models whose answer the client did not read to its end.
SEEN = {"requests": [], "open": 0, "closed_early": []}
LOCK = threading.Lock()
RELEASED = set()
REFUSALS = {"limited": (429, "rate_limit_error"), "down": (503, "server_error")}


def chunk(delta, finish=None):
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1780000000,
        "model": "upstream",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def whole(chunks):
    """The completion that these chunks make."""
    choices = [choice for part in chunks for choice in part["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    calls = {}
    for piece in (piece for choice in choices for piece in choice["delta"].get("tool_calls", [])):
        call = calls.setdefault(piece["index"], {**piece, "function": {"name": "", "arguments": ""}})
        for key, value in piece["function"].items():
            call["function"][key] += value
    message = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = list(calls.values())
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    finish = choices[-1]["finish_reason"]
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {**chunks[0], "object": "chat.completion", "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def json(self, status, body, **headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, kind, code, **headers):
        error = {"message": message, "type": kind, "param": None, "code": code}
        self.json(status, {"error": error}, **headers)

    def do_GET(self):
        if self.path == "/seen":
            with LOCK:
                self.json(200, SEEN)
        elif self.path.startswith("/release/"):
            RELEASED.add(self.path.removeprefix("/release/"))
            self.json(200, {})
        else:
            models = ["plain", "slow", "vendor/tools"]
            self.json(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        behaviour, _, rest = model.partition("-")
        count = rest.partition("-")[0]
        refusals = int(count) if behaviour in REFUSALS else 0
        with LOCK:
            before = sum(1 for request in SEEN["requests"] if request["model"] == model)
            SEEN["requests"].append(body)
        if before < refusals:
            status, kind = REFUSALS[behaviour]
            return self.error(status, "not now", kind, "refused", Retry_After="0")
        if behaviour == "broken":
            return self.error(400, "the prompt is not to my taste", "invalid_request_error", "bad_prompt")
        if not body.get("stream"):
            # Baton always asks for a stream; a client that asks without Baton may not.
            self.whole = []
            self.answer(model, behaviour, body["messages"][-1])
            chunks, self.whole = self.whole, None
            return self.json(200, whole(chunks))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with LOCK:
            SEEN["open"] += 1
        try:
            self.answer(model, behaviour, body["messages"][-1])
        except OSError:
            with LOCK:
                SEEN["closed_early"].append(model)
        finally:
            with LOCK:
                SEEN["open"] -= 1

    # The chunks of an answer that is not streamed.
    whole = None

    def raw(self, data):
        if self.whole is not None:
            return
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, body):
        if self.whole is not None and isinstance(body, dict):
            self.whole.append(body)
        self.raw(b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n")

    def wait_for_release(self, model):
        """Says nothing until `/release/<model>` is asked for, or the client has gone."""
        while model not in RELEASED:
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable:
                raise ConnectionResetError("the client has gone")

    def answer(self, model, behaviour, last):
        self.event(chunk({"role": "assistant", "content": ""}))
        if behaviour == "slow":
            for n in range(3000):
                self.event(chunk({"content": f"{n} "}))
                time.sleep(0.02)
        elif behaviour == "cut":
            self.event(chunk({"content": "half an ans"}))
            # What arrives together with the break need not be shown.
            self.wait_for_release(model)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        elif behaviour == "mute":
            self.wait_for_release(model)
        elif behaviour == "hang":
            self.event(chunk({"content": "wait for"}))
            self.wait_for_release(model)
        elif behaviour == "tools":
            for index, city in enumerate(["Paris", "Rome"]):
                call = {"index": index, "id": f"call_{city}", "type": "function",
                        "function": {"name": "get_weather", "arguments": ""}}
                self.event(chunk({"tool_calls": [call]}))
                for piece in ['{"city"', f':"{city[:2]}', f'{city[2:]}"}}']:
                    piece = {"index": index, "function": {"arguments": piece}}
                    self.event(chunk({"tool_calls": [piece]}))
            self.event(chunk({}, "tool_calls"))
            self.event(b"[DONE]")
        elif behaviour in ("pay", "invoke") and last["role"] != "tool":
            # `invoke` calls the tool that the user's message names, as JSON.
            pay = {"name": "pay", "arguments": '{"amount":7}'}
            function = pay if behaviour == "pay" else json.loads(last["content"])
            call = {"index": 0, "id": "call_pay", "type": "function", "function": function}
            self.event(chunk({"tool_calls": [call]}))
            self.event(chunk({}, "tool_calls"))
            self.event(b"[DONE]")
            return self.raw(b"")
        elif behaviour in ("pay", "invoke"):
            self.event(chunk({"content": f"It says: {last['content']}. "}))
        if behaviour not in ("slow", "tools"):
            for word in ["All ", "is ", "well: ", "naïve ", "🦀"]:
                self.event(chunk({"content": word}))
            self.event(chunk({}, "stop"))
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            self.event({**chunk({}), "choices": [], "usage": usage})
            self.event(b"[DONE]")
        self.raw(b"")


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
