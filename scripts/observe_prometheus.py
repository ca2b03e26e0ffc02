"""A real Prometheus with the delivered configuration, and with the roles of a stack as its targets."""

import contextlib
import json
import re
import shutil
import time
import urllib.parse

from observe_stack import ROOT, WORK, Part, free_port, request, wait_for

DELIVERED = ROOT / "deployments/prometheus"
HOURS = {"s": 1, "m": 60, "h": 3600}


def quicker(text):
    """Divides every window, interval and patience of rules by 60: an hour becomes a minute."""

    def divided(found):
        seconds = int(found[2]) * HOURS[found[3]] / 60
        return f"{found[1]}{max(1, round(seconds))}s{found[4]}"

    text = re.sub(r"(\[)(\d+)([smh])(\])", divided, text)
    text = re.sub(r"((?:for|interval): )(\d+)([smh])()$", divided, text, flags=re.M)
    # Ages from a quarter of an hour are divided as well. Thirty seconds stay, because a busy machine needs some.
    return text.replace("> 900", "> 15").replace("> 3600", "> 60")


class Prometheus(Part):
    def __init__(self, roles, every=5, rules=lambda text: text):
        self.every, self.folder = every, WORK / "prometheus"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "targets").mkdir(parents=True)
        for name in ("rules.yml", "alerts.yml"):
            text = (DELIVERED / name).read_text()
            (self.folder / name).write_text(rules(re.sub(r"\binterval: \d+s", f"interval: {every}s", text)))
        config = (DELIVERED / "prometheus.yml").read_text()
        config = re.sub(r"(scrape|evaluation)_interval: \d+s", rf"\1_interval: {every}s", config)
        (self.folder / "prometheus.yml").write_text(config)
        self.roles = roles
        for kind in {role.kind for role in roles}:
            targets = [role.admin for role in roles if role.kind == kind]
            (self.folder / f"targets/{kind}.yml").write_text(json.dumps([{"targets": targets}]))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__("prometheus", [
            "prometheus", f"--config.file={self.folder / 'prometheus.yml'}",
            f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={self.folder / 'data'}",
            "--enable-feature=exemplar-storage",
        ])

    @contextlib.contextmanager
    def running(self):
        self.start()
        try:
            wait_for("Prometheus", lambda: len(self.now("up == 1")) == len(self.roles))
            yield self
        finally:
            self.end(patience=10)

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        status, text = request(f"{self.url}/api/v1/{path}?{query}")
        if status == 503:
            raise ConnectionError("Prometheus is starting")
        answer = json.loads(text)
        if status != 200:
            raise SystemExit(f"{parameters.get('query')}: {answer['error']}")
        return answer["data"]["result"] if "result" in answer["data"] else answer["data"]

    def now(self, query):
        return self.ask("query", query=query)

    def lately(self, query, seconds, end=None):
        end = end or time.time()
        return self.ask("query_range", query=query, start=end - seconds, end=end, step=self.every)

    def exemplars(self, query, seconds):
        """Returns the exemplars of each series that the query names."""
        now = time.time()
        return self.ask("query_exemplars", query=query, start=now - seconds, end=now)

    def rules(self):
        """Returns each rule as Prometheus read it."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
