"""Runs Baton under load before a real Prometheus, and asks it every query of dashboards and rules.

Started by scripts/observe. Writes nothing outside target/observe, but for docs/images with --images.
"""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent
WORK = ROOT / "target/observe"
RULES = ROOT / "deployments/prometheus"
MODEL = "observed-model"

# Queries whose answer may be no number under this load, each with its reason.
NO_NUMBER = {
    "baton_ingress_revocation_seconds": "no credential ends while something is open",
    "baton_cancel_latency_seconds": "a cancel may come after the end of its run",
}


class Upstream(http.server.BaseHTTPRequestHandler):
    """A model server that does what the newest message of the user says."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

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
        size = int(self.headers.get("content-length", 0))
        request = json.loads(self.rfile.read(size))
        if self.path.endswith("/tool"):
            return self.answer({"result": "done"})
        asked = [m for m in request["messages"] if m["role"] == "user"][-1]["content"]
        called = any(m["role"] == "tool" for m in request["messages"])
        if "fail" in asked:
            return self.answer({"error": {"message": "out of order", "type": "server_error"}}, 500)
        tool = next((t for t in ("calculator", "invented") if t in asked and not called), None)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if tool:
            call = {"index": 0, "id": "call_1", "type": "function"}
            call["function"] = {"name": tool, "arguments": '{"expression":"15% of 847"}'}
            self.chunk({"tool_calls": [call]})
        else:
            for word in range(60 if "slow" in asked else 6):
                self.chunk({"content": f"word {word} "})
                time.sleep(0.05)
        self.chunk({}, "tool_calls" if tool else "stop")
        usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
        usage["prompt_tokens_details"] = {"cached_tokens": 16}
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def chunk(self, delta, finish=None):
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def handle(self):
        # A worker may hang up: its run was cancelled, or it died.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def event(self, body):
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, **body}
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def request(url, body=None, headers=None, method=None, read=True):
    """Status and body; a refusal is an answer too."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", **(headers or {})}
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode() if read else ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Load:
    """What clients do, good and bad, until it is stopped."""

    def __init__(self, ready, budgeted):
        self.url, self.key, self.budgeted = ready["base_url"], ready["api_key"], budgeted
        self.stop, self.errors = threading.Event(), []

    def asks(self, words, key=None, **more):
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": words}]}
        headers = {"authorization": f"Bearer {key or self.key}"}
        return request(f"{self.url}/v1/chat/completions", {**body, **more}, headers)

    def run(self, words):
        headers = {"authorization": f"Bearer {self.key}", "idempotency-key": words.replace(" ", "-")}
        body = {"model": MODEL, "input": words}
        status, text = request(f"{self.url}/v1/runs", body, headers)
        return status, json.loads(text)

    def cancels(self, number):
        _, run = self.run(f"slow {number}")
        headers = {"authorization": f"Bearer {self.key}"}
        return request(f"{self.url}/v1/runs/{run['id']}/cancel", {}, headers)

    def rounds(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            try:
                self.asks(f"Say something, {number}.")
                self.asks("Use the calculator.")
                self.asks("Use the invented tool.")
                self.asks("Be slow.")
                self.run(f"again {number // 2}")
                if number % 4 == 0:
                    self.asks("Please fail.")
                    self.cancels(f"{number} {threading.get_ident()}")
                    self.asks("Who am I?", key="bt_dev_nobody")
                    self.asks("Too much.", key=self.budgeted)
                    request(f"{self.url}/nowhere")
            except OSError as error:
                self.errors.append(repr(error))
                time.sleep(0.2)

    @contextlib.contextmanager
    def going(self, clients):
        threads = [threading.Thread(target=self.rounds, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        yield
        self.stop.set()
        for thread in threads:
            thread.join(60)


class Prometheus:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        status, text = request(f"{self.url}/api/v1/{path}?{query}")
        answer = json.loads(text)
        if status != 200:
            raise SystemExit(f"{parameters.get('query')}: {answer['error']}")
        return answer["data"]["result"] if "result" in answer["data"] else answer["data"]

    def now(self, query):
        return self.ask("query", query=query)

    def lately(self, query, seconds, step=5):
        end = time.time()
        return self.ask("query_range", query=query, start=end - seconds, end=end, step=step)


def expanded(query, interval="40s"):
    """As Grafana would ask, with every variable at All."""
    query = query.replace("$__rate_interval", interval)
    return re.sub(r"\$(job|instance|lane|model)\b", ".*", query)


def panels():
    for path in sorted((ROOT / "deployments/grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield path.stem, board, panel


def lint(path, board, panel):
    """What a reviewer would say of a panel."""
    where = f"{path}: {panel['title']}"
    for needed in ("description", "title"):
        if not panel.get(needed):
            yield f"{where}: has no {needed}"
    if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        yield f"{where}: has no unit"
    for target in panel["targets"]:
        if target["datasource"]["uid"] != "${datasource}":
            yield f"{where}: names a data source"
        if re.search(r"\[\d+[smhd]\]", target["expr"]) and panel["type"] != "stat":
            yield f"{where}: has a fixed interval"
    if board["editable"]:
        yield f"{path}: can be edited in the browser"


def selectors(expression):
    """Each metric of an expression with its labels, without comparisons."""
    names = r"(?:baton|jetstream|process)[_:][a-z0-9_:]+|up"
    return {"".join(found) for found in re.findall(rf"\b({names})\b(\{{[^}}]*\}})?", expression)}


def rules(prometheus):
    """Each rule's name, whether it is an alert, and its expression, as Prometheus read them."""
    for group in prometheus.ask("rules")["groups"]:
        for rule in group["rules"]:
            yield rule["name"], rule["type"] == "alerting", rule["query"]


def numbers(series):
    values = [s["value"][1] for s in series] if series and "value" in series[0] else []
    values += [value for s in series for _, value in s.get("values", [])]
    return [value for value in values if value not in ("NaN", "+Inf", "-Inf")]


def check(prometheus, seconds):
    problems = []
    asked = 0
    for path, board, panel in panels():
        problems += lint(path, board, panel)
        for target in panel["targets"]:
            asked += 1
            query = expanded(target["expr"])
            found = prometheus.lately(query, seconds)
            where = f"{path}: {panel['title']}: {query}"
            if not found:
                problems.append(f"{where}: no data")
            elif not numbers(found) and not any(name in query for name in NO_NUMBER):
                problems.append(f"{where}: no number")
    for name, is_alert, expression in rules(prometheus):
        asked += 1
        if not is_alert and not prometheus.lately(name, seconds):
            problems.append(f"{name}: no data")
        # An alert that does not fire is silent; what it looks at must be there.
        for selector in selectors(expression) if is_alert else ():
            if not prometheus.lately(selector, seconds):
                problems.append(f"{name}: {selector} has no data")
    for name in ("job", "instance"):
        if not prometheus.now(f"count by ({name}) (baton_build_info)"):
            problems.append(f"the variable {name} has no values")
    return asked, problems


def wait_for(what, found, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, SystemExit):
            if found():
                return
        time.sleep(0.5)
    raise SystemExit(f"waited {seconds} s for {what}")


@contextlib.contextmanager
def process(name, command, **options):
    """Runs a program, and stops it; what it wrote is in target/observe."""
    with open(WORK / f"{name}.log", "w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(40)
            except subprocess.TimeoutExpired:
                child.kill()


def configure(upstream):
    (WORK / "baton.toml").write_text(
        f"""[llm]
base_url = "http://127.0.0.1:{upstream}/v1"
default_model = "{MODEL}"
max_retries = 1

[[llm.prices]]
model = "{MODEL}"
input_per_million = "2.50"
cached_input_per_million = "1.25"
output_per_million = "10.00"
"""
    )


def end_workers():
    """One dies and one drains, both at work; `baton dev` starts them again."""
    told = (WORK / "baton.log").read_text()
    workers = [int(pid) for pid in re.findall(r"^worker: process (\d+)", told, re.M)]
    os.kill(workers[0], signal.SIGKILL)
    os.kill(workers[1], signal.SIGTERM)


def scrape(ready):
    """The delivered configuration, with these roles as its targets, and quicker."""
    folder = WORK / "prometheus"
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    for name in ("rules.yml", "alerts.yml"):
        (folder / name).write_text((RULES / name).read_text().replace("interval: 30s", "interval: 5s"))
    config = (RULES / "prometheus.yml").read_text()
    config = config.replace("scrape_interval: 10s", "scrape_interval: 5s")
    (folder / "prometheus.yml").write_text(config.replace("evaluation_interval: 15s", "evaluation_interval: 5s"))
    admin = ready["admin"]
    roles = {"ingress": [admin["ingress"]], "worker": admin["workers"], "scheduler": [admin["scheduler"]]}
    for role, urls in roles.items():
        targets = [url.removeprefix("http://") for url in urls]
        (folder / "targets" / f"{role}.yml").write_text(json.dumps([{"targets": targets}]))
    return folder / "prometheus.yml"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=75, help="how long the load lasts")
    arguments.add_argument("--images", action="store_true", help="draw the dashboards into docs/images")
    arguments = arguments.parse_args()
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    configure(upstream.server_port)
    ready_file = WORK / "ready.json"
    ready_file.unlink(missing_ok=True)
    program = str(ROOT / "target/debug/baton")
    config = ["--config", str(WORK / "baton.toml")]
    dev = [program, "dev", *config, "--separate", "--workers", "3", "--http", "127.0.0.1:0"]
    dev += ["--ready-file", str(ready_file), "--data", str(WORK / "data")]
    environment = {**os.environ, "RUST_LOG": "info"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(process("baton", dev, env=environment))
        wait_for("Baton", ready_file.exists)
        ready = json.loads(ready_file.read_text())
        port = free_port()
        command = ["prometheus", f"--config.file={scrape(ready)}", f"--web.listen-address=127.0.0.1:{port}"]
        data = WORK / f"prometheus-data-{os.getpid()}"
        stack.enter_context(process("prometheus", [*command, f"--storage.tsdb.path={data}"]))
        prometheus = Prometheus(port)
        wait_for("Prometheus", lambda: len(prometheus.now("up == 1")) == 5)
        key = ["keys", "create", "--tenant", "dev", "--name", "observe", "--monthly-tokens", "1"]
        made = subprocess.run(
            [program, *key, *config],
            env={**environment, "DATABASE_URL": ready["database_url"], "BATON_AUTH__KEY_ENVIRONMENT": "dev", "BATON_DEVELOPMENT": "1"},
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise SystemExit(f"baton keys create: {made.stderr}")
        load = Load(ready, made.stdout.strip())
        with load.going(6):
            time.sleep(arguments.seconds / 2)
            end_workers()
            time.sleep(arguments.seconds / 2)
        time.sleep(6)
        asked, problems = check(prometheus, arguments.seconds)
        if arguments.images:
            import observe_images

            observe_images.draw(prometheus, panels(), expanded, arguments.seconds, ROOT / "docs/images")
    print(f"{asked} queries asked, {len(problems)} problems, {len(load.errors)} connections refused")
    for problem in problems:
        print(f"  {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
