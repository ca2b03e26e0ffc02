"""A model server for `make observe`: it answers by the newest message of the user, and can be made to misbehave.

`/mcp` is an MCP server with one tool, and `/spans` takes spans without reading them.
"""

import contextlib
import http.server
import json
import threading
import time

MODEL = "observed-model"
TOOLS = ("calculator", "current_time", "notes__look", "invented")
ARGUMENTS = {"calculator": '{"expression":"15% of 847"}'}


class Upstream(http.server.ThreadingHTTPServer):
    """Serves on a free port of this machine until the process ends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.mend()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def mend(self):
        """Ends every misbehaviour."""
        self.fails, self.first_token = False, 0.0
        self.release()

    def release(self):
        """Lets held answers go on, and holds no more of them."""
        previous, self.held = getattr(self, "held", None), None
        if previous:
            previous.set()

    def hold(self):
        """Stops each answer after its first word until `release`."""
        self.held = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        # A worker may hang up, because its run was cancelled or because it died.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def answer(self, body, status=200):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/spans/v1/traces":
            return self.answer({})
        request = json.loads(body)
        if self.path == "/mcp":
            return self.serve_mcp(request)
        asked = [m for m in request["messages"] if m["role"] == "user"][-1]["content"]
        if self.server.fails or "fail" in asked:
            return self.answer({"error": {"message": "out of order", "type": "server_error"}}, 500)
        called = any(m["role"] == "tool" for m in request["messages"])
        tool = next((t for t in TOOLS if t in asked and not called), None)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        time.sleep(self.server.first_token)
        if tool:
            call = {"index": 0, "id": "call_1", "type": "function"}
            call["function"] = {"name": tool, "arguments": ARGUMENTS.get(tool, "{}")}
            self.chunk({"tool_calls": [call]})
        else:
            self.words(60 if "slow" in asked else 6)
        self.chunk({}, "tool_calls" if tool else "stop")
        usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
        usage["prompt_tokens_details"] = {"cached_tokens": 16}
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def serve_mcp(self, request):
        if "id" not in request:
            self.send_response(202)
            self.send_header("content-length", "0")
            return self.end_headers()
        results = {
            "initialize": {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "notes", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": "nothing is written"}]},
        }
        result = results.get(request["method"])
        outcome = {"result": result} if result else {"error": {"code": -32601, "message": "no such method"}}
        self.answer({"jsonrpc": "2.0", "id": request["id"], **outcome})

    def words(self, count):
        for word in range(count):
            self.chunk({"content": f"word {word} "})
            if held := self.server.held:
                held.wait(120)
            time.sleep(0.05)

    def chunk(self, delta, finish=None):
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def event(self, body):
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, **body}
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()
