"""nginx in front of two ingresses: streams of minutes, a restart under them, bodies at the limit, its log."""

import http.client
import json
import socket
import ssl
import sys
import threading
import time

from compose_deployment import PERSON
from compose_engine import run, say
from compose_load import PATIENCE, Client, Follower, patiently, submit

FOLLOWERS = 12
LIMIT = 10 << 20
ENDED = ("completed", "failed", "cancelled")


def fail(reason):
    sys.exit(f"compose-test: nginx: {reason}")


class LongRun:
    """A run of more than two minutes, followed by many clients at once."""

    def __init__(self, client):
        self.client = client
        self.run_id = patiently(submit(client, "demo-slow"))
        self.followers = [Follower(client, self.run_id) for _ in range(FOLLOWERS)]
        self.ends = []
        self.begun = time.monotonic()
        self.threads = [threading.Thread(target=self.follow, args=(one,), daemon=True) for one in self.followers]
        for thread in self.threads:
            thread.start()

    def follow(self, follower):
        try:
            self.ends.append(patiently(follower.follow))
        except Exception as error:  # noqa: BLE001 - whatever it was, the test has failed
            self.ends.append(repr(error))

    def must_stream(self):
        """Each client has events while the run is at work: nothing in between keeps them back."""
        deadline = time.monotonic() + PATIENCE
        while any(follower.last < 3 for follower in self.followers):
            if time.monotonic() > deadline:
                fail("a stream brings no events")
            time.sleep(0.1)
        state = self.client.must(200, "GET", f"/v1/runs/{self.run_id}")["status"]
        if state in ENDED:
            fail(f"the streams brought their first events when the run was {state}")

    def judge(self):
        for thread in self.threads:
            thread.join(2 * PATIENCE)
        if self.ends != ["run.completed"] * FOLLOWERS:
            fail(f"followers of run {self.run_id} ended with {self.ends}")
        lasts = {follower.last for follower in self.followers}
        if len(lasts) != 1:
            fail(f"followers of run {self.run_id} ended at different events: {lasts}")
        whole = sum(follower.streams == 1 for follower in self.followers)
        if not whole:
            fail("no stream lasted as long as the run, although one ingress was never stopped")
        seconds = time.monotonic() - self.begun
        say(f"{FOLLOWERS} clients followed a run of {seconds:.0f} s, {whole} of them in one stream")


def restart_one_ingress(deployment):
    container = deployment.containers("ingress")[0]
    run("docker", "stop", container)
    deployment.must_have_ended_well(container, "ingress")
    run("docker", "start", container)
    deployment.up()


def bodies(client):
    """A body at http.body_limit reaches Baton, and one byte more does not."""
    def padded(size):
        body = {"model": "demo", "input": "x", "unknown": ""}
        body["unknown"] = "y" * (size - len(json.dumps(body)))
        return json.dumps(body).encode()

    for size, by_nginx in ((LIMIT, False), (LIMIT + 1, True)):
        connection, answer = client.open("POST", "/v1/runs", padded(size))
        request_id = answer.getheader("X-Request-Id")
        text = answer.read(500)
        connection.close()
        if by_nginx and (answer.status != 413 or request_id):
            fail(f"a body of {size} bytes got {answer.status}: {text}")
        if not by_nginx and (answer.status in (413, 502, 504) or not request_id):
            fail(f"a body of {size} bytes got {answer.status} and no answer of Baton: {text}")


def tls(deployment):
    def handshake(protocols, version):
        context = ssl.create_default_context(cafile=str(deployment.folder / "tls/server.pem"))
        context.set_alpn_protocols(protocols)
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", deployment.port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
                return wrapped.version(), wrapped.selected_alpn_protocol()

    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        if handshake(["h2", "http/1.1"], version) != (name, "h2"):
            fail(f"no HTTP/2 over {name}")
    plain = http.client.HTTPConnection("localhost", deployment.plain_port)
    plain.request("GET", "/v1/models?x=1")
    answer = plain.getresponse()
    location = answer.getheader("Location")
    if answer.status != 308 or location != "https://localhost/v1/models?x=1":
        fail(f"plain HTTP answered {answer.status}, {location}")


def log_lines(deployment):
    """The log has paths and no queries, and Baton has the client's address from nginx alone."""
    claimed = "203.0.113.7"
    # First, so that its line would be there before the login's.
    Client(deployment).must(200, "GET", "/health")
    connection, answer = Client(deployment).open(
        "POST", "/v1/auth/login?ticket=secret", PERSON, {"X-Forwarded-For": claimed}
    )
    request_id = answer.getheader("X-Request-Id")
    if answer.status != 200 or not answer.getheader("Strict-Transport-Security"):
        fail(f"a login got {answer.status} with {answer.getheaders()}")
    connection.close()
    deadline = time.monotonic() + PATIENCE
    while True:
        log = deployment.logs("nginx")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        mine = [line for line in lines if line["request_id"] == request_id]
        if mine:
            break
        if time.monotonic() > deadline:
            fail(f"request {request_id} is not in its log")
        time.sleep(0.2)
    if mine[0]["path"] != "/v1/auth/login" or "secret" in log:
        fail(f"its log has a query: {mine}")
    if any(line["path"] in ("/", "/health") for line in lines):
        fail("its log has health checks")
    audited = [line.split()[-1] for line in deployment.cli("audit").splitlines() if " session.opened " in line]
    if audited[-1] != mine[0]["address"] or claimed in audited:
        fail(f"the audit log has a login from {audited[-1]}, and nginx's has it from {mine[0]['address']}")


def open_requests(client):
    """One address may have so many requests open at once, and no more."""
    for _ in range(3):
        run_id = patiently(submit(client, "demo-slow"))
        if refused_at_last(client, run_id):
            client.ask("POST", f"/v1/runs/{run_id}/cancel")
            return
        # On a busy machine the run can end before so many streams are open.
        if client.must(200, "GET", f"/v1/runs/{run_id}")["status"] not in ENDED:
            fail("no limit of open requests for one address")
    fail("this machine opens streams too slowly for the test of nginx's limit")


def refused_at_last(client, run_id):
    """Opens streams of a run; returns whether nginx refused one within its limit of 256."""
    opened = []
    try:
        while len(opened) <= 256:
            connection, answer = client.open("GET", f"/v1/runs/{run_id}/events")
            opened.append(connection)
            if answer.status == 429 and not answer.getheader("X-Request-Id"):
                return True
            if answer.status != 200:
                fail(f"stream {len(opened)} of one address got {answer.status}")
        return False
    finally:
        for connection in opened:
            connection.close()
