"""Clients of a deployment under test: requests through nginx, and a load whose runs must all end."""

import http.client
import json
import ssl
import sys
import threading
import time
import uuid

from compose_engine import say

PATIENCE = 180
QUESTION = "What is 15% of 847?"
# Answers after which a client asks again.
TEMPORARY = (429, 500, 502, 503, 504)


class Client:
    """Requests through nginx, its certificate checked."""

    def __init__(self, deployment, credential=None):
        self.port = deployment.port
        self.credential = credential
        self.tls = ssl.create_default_context(cafile=str(deployment.folder / "tls/server.pem"))

    def open(self, method, path, body=None, headers=None, timeout=60):
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=timeout)
        headers = {"Content-Type": "application/json", **(headers or {})}
        if self.credential:
            headers["Authorization"] = f"Bearer {self.credential}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=None, timeout=60):
        connection, answer = self.open(method, path, body, headers, timeout)
        try:
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    def must(self, expected, method, path, body=None):
        status, answer = self.ask(method, path, body)
        if status != expected:
            sys.exit(f"compose-test: {method} {path} answered {status}: {answer}")
        return answer

    def chat(self):
        body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        connection, answer = self.open("POST", "/v1/chat/completions", body)
        text = answer.read().decode()
        connection.close()
        if answer.status != 200 or "data: [DONE]" not in text:
            sys.exit(f"compose-test: the chat answered {answer.status}: {text[-500:]}")


class Follower:
    """One client of a run's events, who asks for the rest if a stream ends early."""

    def __init__(self, client, run_id):
        self.client = client
        self.run_id = run_id
        self.last = 0
        self.streams = 0

    def follow(self):
        """Reads one stream; returns the run's last event if it came."""
        headers = {"Last-Event-ID": str(self.last)} if self.last else {}
        connection, answer = self.client.open("GET", f"/v1/runs/{self.run_id}/events", None, headers)
        try:
            if answer.status in TEMPORARY:
                return None
            if answer.status != 200:
                raise ValueError(f"run {self.run_id}: events answered {answer.status}: {answer.read()[:300]}")
            self.streams += 1
            kind = None
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                if name == "id":
                    if int(value) <= self.last:
                        raise ValueError(f"run {self.run_id}: event {value} again, after {self.last}")
                    self.last = int(value)
                if name == "data" and kind in ("run.completed", "run.failed", "run.cancelled"):
                    return kind
            return None
        finally:
            connection.close()


def patiently(attempt, paused=lambda: None):
    """Until an attempt has an answer; refusals that may be repeated, and lost connections, are pauses."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            answer = attempt()
            if answer is not None:
                return answer
        except (OSError, http.client.HTTPException):
            pass
        paused()
        time.sleep(0.2)
    raise TimeoutError("no answer")


def submit(client, model="demo"):
    """Submits a run, as often as it takes, and returns its id."""
    key = {"Idempotency-Key": uuid.uuid4().hex}

    def attempt():
        status, answer = client.ask("POST", "/v1/runs", {"model": model, "input": QUESTION}, key)
        if status in (200, 201, 202):
            return answer["id"]
        if status in TEMPORARY:
            return None
        raise ValueError(f"a submission answered {status}: {answer}")

    return attempt


class Load:
    """Runs that are submitted and followed all the time; each must end, its events without a gap."""

    def __init__(self, client, threads=4):
        self.client = client
        self.stopped = threading.Event()
        self.problems = []
        self.ended = 0
        self.pauses = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.follow_runs, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def follow_runs(self):
        while not self.stopped.is_set():
            try:
                self.one_run()
            except Exception as error:  # noqa: BLE001 - whatever it was, the test has failed
                with self.lock:
                    self.problems.append(repr(error))
                return

    def paused(self):
        with self.lock:
            self.pauses += 1

    def one_run(self):
        run_id = patiently(submit(self.client), self.paused)
        end = patiently(Follower(self.client, run_id).follow, self.paused)
        if end != "run.completed":
            raise ValueError(f"run {run_id} ended with {end}")
        with self.lock:
            self.ended += 1

    def must_go_on(self, runs):
        """Waits until so many more runs have ended."""
        deadline = time.monotonic() + PATIENCE
        wanted = self.ended + runs
        while self.ended < wanted:
            if self.problems or time.monotonic() > deadline:
                sys.exit(f"compose-test: the load does not go on: {self.problems}")
            time.sleep(0.1)

    def judge(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE)
        if self.problems or any(thread.is_alive() for thread in self.threads):
            sys.exit(f"compose-test: something was lost: {self.problems}")
        say(f"{self.ended} runs, each completed and followed to its end; {self.pauses} times a client had to wait")
