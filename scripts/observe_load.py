"""The clients of `make observe`: good ones, and some that are refused."""

import contextlib
import http.client
import json
import threading
import time

from observe_stack import request
from observe_upstream import MODEL


# A connection that is refused, or cut in the middle of an answer.
BROKEN = (OSError, http.client.HTTPException)


class Clients:
    """Threads that chat with both ingresses until they are stopped."""

    def __init__(self, stack):
        self.ingresses = stack.of("ingress")
        self.key, self.budgeted = stack.key("clients"), stack.key("small", "--monthly-tokens", "1")
        self.stopped, self.refused_connections = threading.Event(), 0

    def url(self, number=0):
        return f"http://{self.ingresses[number % len(self.ingresses)].http}"

    def ask(self, words, number=0, key=None, **more):
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": words}], **more}
        headers = {"authorization": f"Bearer {key or self.key}"}
        return request(f"{self.url(number)}/v1/chat/completions", body, headers, patience=60)

    def post(self, path, body, number=0, **headers):
        headers["authorization"] = f"Bearer {self.key}"
        status, text = request(self.url(number) + path, body, headers)
        return status, json.loads(text) if text else None

    def run(self, words, number=0, **more):
        """Submits a run, and returns it without waiting for its end."""
        status, run = self.post("/v1/runs", {"model": MODEL, "input": words, **more}, number)
        if status not in (200, 201, 202):
            raise SystemExit(f"POST /v1/runs: {status} {run}")
        return run

    def cancel(self, run, number=0):
        return self.post(f"/v1/runs/{run['id']}/cancel", {}, number)

    def quietly_ask(self, number):
        with contextlib.suppress(*BROKEN):
            self.ask("Say something.", number)

    def chat_only(self, number):
        self.ask("Say something.", number)
        time.sleep(0.1)

    def everything(self, number):
        self.ask(f"Say something, {number}.", number)
        self.ask("Use the calculator.", number)
        self.ask("Use notes__look.", number)
        self.ask("Use the invented tool.", number)
        self.ask("Be slow.", number)
        body = {"model": MODEL, "input": f"again {number // 2}"}
        self.post("/v1/runs", body, number, **{"idempotency-key": f"again-{number // 2}"})
        if number % 4 == 0:
            self.ask("Please fail.", number)
            self.cancel(self.run(f"slow {number}", number), number)
            self.ask("Who am I?", number, key="bt_live_nobody")
            self.ask("Too much.", number, key=self.budgeted)
            request(f"{self.url(number)}/nowhere")

    def loop(self, round_, number, clients):
        while not self.stopped.is_set():
            number += clients
            try:
                round_(number)
            except (*BROKEN, SystemExit):
                self.refused_connections += 1
                time.sleep(0.2)

    @contextlib.contextmanager
    def going(self, clients, round_):
        self.stopped.clear()
        loops = [(round_, number, clients) for number in range(clients)]
        threads = [threading.Thread(target=self.loop, args=loop, daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join(60)
