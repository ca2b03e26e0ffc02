"""Runs Baton under load before a real Prometheus, and asks it every query of dashboards and rules.

Started by scripts/observe. Writes nothing outside target/observe, but for docs/images with --images.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time

import observe_stack
from observe_load import Clients
from observe_prometheus import Prometheus
from observe_stack import request

# Queries whose answer may be no number under this load, each with its reason.
NO_NUMBER = {
    "baton_ingress_revocation_seconds": "no credential ends while something is open",
    "baton_cancel_latency_seconds": "a cancel may come after the end of its run",
}


def expanded(query, interval="40s"):
    """Returns the query as Grafana asks it with every variable at All."""
    query = query.replace("$__rate_interval", interval)
    return re.sub(r"\$(job|instance|lane|model)\b", ".*", query)


def panels():
    for path in sorted((observe_stack.ROOT / "deployments/grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield path.stem, board, panel


def lint(path, board, panel):
    """Finds what a reviewer would object to in a panel."""
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
        if re.search(r"(?<!{){\w+}", target["legendFormat"]):
            yield f"{where}: Grafana shows {target['legendFormat']} as it is written"
    if board["editable"]:
        yield f"{path}: can be edited in the browser"


def lint_runbooks():
    """Finds panels that runbooks name and dashboards do not have."""
    boards = {}
    for _, board, panel in panels():
        boards.setdefault(board["title"].removeprefix("Baton: "), set()).add(panel["title"])
    for path in sorted((observe_stack.ROOT / "docs/runbooks").glob("*.md")):
        for board, named in re.findall(r"\*([A-Z][^*\n]+)\*([^*\n]*)", path.read_text()):
            if board not in boards:
                yield f"{path.name}: there is no dashboard {board}"
            for panel in re.findall(r'"([^"]+)"', named):
                if panel not in boards.get(board, ()):
                    yield f"{path.name}: {board} has no panel {panel}"


def selectors(expression):
    """Returns each metric of an expression with its labels, without comparisons."""
    names = r"(?:baton|jetstream|process)[_:][a-z0-9_:]+|up"
    return {"".join(found) for found in re.findall(rf"\b({names})\b(\{{[^}}]*\}})?", expression)}


def numbers(series):
    values = [value for s in series for _, value in s["values"]]
    return [value for value in values if value not in ("NaN", "+Inf", "-Inf")]


def check_panel(prometheus, seconds, path, panel):
    for target in panel["targets"]:
        query = expanded(target["expr"])
        found = prometheus.lately(query, seconds)
        where = f"{path}: {panel['title']}: {query}"
        if not found:
            yield f"{where}: no data"
        elif not numbers(found) and not any(name in query for name in NO_NUMBER):
            yield f"{where}: no number"
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            if found and not any(label in series["metric"] for series in found):
                yield f"{where}: the legend names {label}, and no series has it"


def check_exemplars(prometheus, seconds):
    """Asks for the exemplars of each graph that shows some, as Grafana does."""
    traced = [
        (f"{path}: {panel['title']}", target["expr"])
        for path, _, panel in panels() for target in panel["targets"] if target.get("exemplar")
    ]
    if not traced:
        yield "no graph shows exemplars"
    for where, expression in traced:
        series = prometheus.exemplars(expanded(expression), seconds)
        traces = [exemplar["labels"].get("trace_id", "") for one in series for exemplar in one["exemplars"]]
        if not any(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces):
            yield f"{where}: no exemplar names a trace"


def check_text(role):
    """Reads the metrics of a role as the makers of both formats do."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    url = f"http://{role.admin}/metrics"
    _, plain = request(url)
    linted = subprocess.run(["promtool", "check", "metrics"], input=plain, capture_output=True, text=True)
    if linted.returncode or linted.stderr:
        yield f"{role.name}: promtool: {linted.stderr or linted.stdout}"
    _, text = request(url, headers={"accept": "application/openmetrics-text; version=1.0.0"})
    try:
        families = {family.name for family in text_string_to_metric_families(text)}
    except ValueError as error:
        yield f"{role.name}: OpenMetrics: {error}"
        return
    named = set(re.findall(r"^# TYPE (\S+?)(?:_total)? ", plain, flags=re.M))
    if families != named:
        yield f"{role.name}: OpenMetrics has other metrics: {sorted(families ^ named)}"


def check(prometheus, seconds):
    problems = list(lint_runbooks())
    asked = 0
    for path, board, panel in panels():
        problems += lint(path, board, panel)
        problems += check_panel(prometheus, seconds, path, panel)
        asked += len(panel["targets"])
    for rule in prometheus.rules():
        asked += 1
        alert = rule["type"] == "alerting"
        if not alert and not numbers(prometheus.lately(rule["name"], seconds)):
            problems.append(f"{rule['name']}: no number")
        # An alert that does not fire is silent; the series that it reads must exist.
        for selector in selectors(rule["query"]) if alert else ():
            if not prometheus.lately(selector, seconds):
                problems.append(f"{rule['name']}: {selector} has no data")
    problems += check_exemplars(prometheus, seconds)
    for role in prometheus.roles:
        problems += check_text(role)
    for name in ("job", "instance"):
        if not prometheus.now(f"count by ({name}) (baton_build_info)"):
            problems.append(f"the variable {name} has no values")
    return asked, problems


def break_some(stack):
    """A worker dies and another one drains, both at work; NATS is away for three seconds."""
    first, second, _ = stack.of("worker")
    first.kill()
    second.end()
    stack.start(first, second)
    stack.nats.kill()
    time.sleep(3)
    stack.nats.start()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=90, help="how long the load lasts")
    arguments.add_argument("--images", action="store_true", help="draw the dashboards into docs/images")
    arguments = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack = observe_stack.from_devstack()
    with stack.running(), Prometheus(stack.roles).running() as prometheus:
        clients = Clients(stack)
        with clients.going(6, clients.everything):
            time.sleep(arguments.seconds / 2)
            waits = clients.run("Tell me the current_time.")
            break_some(stack)
            time.sleep(arguments.seconds / 2)
        time.sleep(6)
        clients.cancel(waits)
        seconds = arguments.seconds + 15
        asked, problems = check(prometheus, seconds)
        if arguments.images:
            import observe_images

            observe_images.draw(prometheus, panels(), expanded, seconds, observe_stack.ROOT / "docs/images")
    print(f"{asked} queries asked, {len(problems)} problems, {clients.refused_connections} connections refused")
    for problem in problems:
        print(f"  {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
