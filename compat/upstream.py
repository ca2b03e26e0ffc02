"""An OpenAI-compatible upstream that does what the model's name says. Prints its port."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SEEN = {"requests": [], "open": 0, "closed_early": 0}
LOCK = threading.Lock()


def chunk(delta, finish=None):
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1780000000,
        "model": "upstream",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


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

    def do_GET(self):
        if self.path == "/seen":
            with LOCK:
                self.json(200, SEEN)
        else:
            models = ["plain", "slow", "tools"]
            self.json(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        with LOCK:
            before = sum(1 for request in SEEN["requests"] if request["model"] == model)
            SEEN["requests"].append(body)
        if model.startswith("limited") and before == 0:
            return self.json(429, {"error": {"message": "slow down", "type": "rate_limit_error",
                                             "param": None, "code": "rate_limited"}}, Retry_After="0")
        if model == "broken":
            return self.json(400, {"error": {"message": "the prompt is not to my taste",
                                             "type": "invalid_request_error", "param": None,
                                             "code": "bad_prompt"}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with LOCK:
            SEEN["open"] += 1
        try:
            self.answer(model)
        except OSError:
            with LOCK:
                SEEN["closed_early"] += 1
        finally:
            with LOCK:
                SEEN["open"] -= 1

    def raw(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, body):
        self.raw(b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n")

    def answer(self, model):
        self.event(chunk({"role": "assistant", "content": ""}))
        if model == "slow":
            for n in range(3000):
                self.event(chunk({"content": f"{n} "}))
                time.sleep(0.02)
        elif model == "cut":
            self.event(chunk({"content": "half an ans"}))
            self.close_connection = True
            self.connection.shutdown(2)
            return
        elif model == "hang":
            self.event(chunk({"content": "wait for"}))
            time.sleep(8)
        elif model == "tools":
            call = {"index": 0, "id": "call_weather", "type": "function",
                    "function": {"name": "get_weather", "arguments": ""}}
            self.event(chunk({"tool_calls": [call]}))
            for piece in ['{"city"', ':"Par', 'is"}']:
                self.event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
            self.event(chunk({}, "tool_calls"))
            self.event(b"[DONE]")
        else:
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
