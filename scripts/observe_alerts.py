"""Injects for each alert the fault that it is for, and waits until a real Prometheus says that it fires and ends.

Started by scripts/observe --alerts. An hour of the delivered rules is a minute here.
"""

import argparse
import signal
import sys
import time

import observe_stack
from observe_faults import FAULTS
from observe_load import Clients
from observe_prometheus import Prometheus, quicker

PATIENCE = 120


def firing(prometheus):
    """Returns the alerts that fire, by name, severity and, if they have one, lane."""
    found = [series["metric"] for series in prometheus.now('ALERTS{alertstate="firing"}')]
    names = ("alertname", "severity", "lane")
    return {" ".join(labels[name] for name in names if name in labels) for labels in found}


class Trial:
    """One fault: the seconds after which each of its alerts fired and ended."""

    def __init__(self, prometheus, fault, alerts):
        self.prometheus, self.fault, self.alerts = prometheus, fault, alerts
        self.fired, self.ended, self.others = {}, {}, set()

    def run(self, stack, clients):
        self.calm()
        begun = time.monotonic()
        with self.fault(stack, clients) as step:
            while len(self.fired) < len(self.alerts) and time.monotonic() - begun < PATIENCE:
                if step:
                    step()
                time.sleep(0.2)
                now = firing(self.prometheus)
                self.others |= now - set(self.alerts)
                for alert in now & set(self.alerts):
                    self.fired.setdefault(alert, time.monotonic() - begun)
        mended = time.monotonic()
        while len(self.ended) < len(self.fired) and time.monotonic() - mended < 2 * PATIENCE:
            time.sleep(0.2)
            now = firing(self.prometheus)
            for alert in self.fired.keys() - now:
                self.ended.setdefault(alert, time.monotonic() - mended)

    def calm(self):
        """Waits until none of the alerts fires because of an earlier fault."""
        end = time.monotonic() + 2 * PATIENCE
        while firing(self.prometheus) & set(self.alerts):
            if time.monotonic() > end:
                raise SystemExit(f"{', '.join(self.alerts)} fires before its fault")
            time.sleep(0.5)

    def rows(self):
        for alert in self.alerts:
            fired, ended = self.fired.get(alert), self.ended.get(alert)
            yield alert, fired, ended, self.fault.__doc__

    def print(self):
        for alert, fired, ended, fault in self.rows():
            print(f"{alert:33} {seconds(fired):>7} {seconds(ended):>7}   {fault}")
        if self.others:
            print(f"{'':33} {'':>7} {'':>7}   also: {', '.join(sorted(self.others))}")
        sys.stdout.flush()


def seconds(value):
    return "never" if value is None else f"{value:.0f} s"


def delivered(prometheus):
    """Returns every alert of the rules."""
    return {f"{rule['name']} {rule['labels']['severity']}" for rule in prometheus.rules() if rule["type"] == "alerting"}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("only", nargs="*", metavar="ALERT", help="the alerts to try; all by default")
    only = set(arguments.parse_args().only)
    faults = [(fault, alerts) for fault, alerts in FAULTS if not only or only & {a.split()[0] for a in alerts}]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack = observe_stack.from_devstack()
    problems = []
    with stack.running(), Prometheus(stack.roles, every=1, rules=quicker).running() as prometheus:
        clients = Clients(stack)
        print(f"{'alert':33} {'fires':>7} {'ends':>7}   fault")
        with clients.going(4, clients.chat_only):
            for fault, alerts in faults:
                trial = Trial(prometheus, fault, alerts)
                trial.run(stack, clients)
                trial.print()
                problems += [alert for alert, fired, ended, _ in trial.rows() if fired is None or ended is None]
        tried = {" ".join(alert.split()[:2]) for _, alerts in FAULTS for alert in alerts}
        without_fault = sorted(delivered(prometheus) - tried)
        problems += [f"{alert} has no fault" for alert in without_fault]
        problems += [f"{alert} is no alert" for alert in sorted(tried - delivered(prometheus))]
    print(f"{len(problems)} problems{': ' if problems else ''}{', '.join(problems)}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
