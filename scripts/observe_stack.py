"""A deployment for `make observe`: `baton init`, PostgreSQL, NATS, two ingresses, three workers, a scheduler.

Every part is a process of its own that can be killed, stopped and started again. All of them listen on 127.0.0.1
and end with this process, whatever ends it.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from observe_upstream import MODEL, Upstream

ROOT = pathlib.Path(__file__).parent.parent
WORK = ROOT / "target/observe"
PROGRAM = str(ROOT / "target/debug/baton")
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG

SETTINGS = f"""
[llm]
default_model = "{MODEL}"
max_retries = 1

[[llm.upstreams]]
name = "observed"
base_url = "@MODELS@/v1"
ca_file = "@CA@"

[[llm.prices]]
model = "{MODEL}"
input_per_million = "2.50"
cached_input_per_million = "1.25"
output_per_million = "10.00"

[[mcp.servers]]
name = "notes"
url = "@MODELS@/mcp"
tools = ["look"]
trust = "hints"

[tools]
built_in = ["calculator", "current_time"]
approval_required = ["current_time"]

[worker]
slots = 8
interactive_slots = 2
drain = "3s"

[http]
lame_duck = "0s"
drain = "3s"

[database]
max_connections = 6
acquire_timeout = "1s"

[scheduler]
sweep_every = "1s"
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def request(url, body=None, headers=None, method=None, patience=30):
    """Returns status and body, also of a refusal."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", **(headers or {})}
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=patience) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(goal, reached, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if reached():
                return
        time.sleep(0.2)
    raise SystemExit(f"waited {seconds} s for {goal}")


class Part:
    """A program that can be ended and started again in the same way."""

    def __init__(self, name, command, environment=None, **options):
        self.name, self.command, self.options = name, command, options
        self.environment, self.child = environment, None

    def start(self):
        def dies_with_this_process():
            ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)

        with open(WORK / f"{self.name}.log", "a") as log:
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                start_new_session=True, preexec_fn=dies_with_this_process, **self.options,
            )

    def end(self, by=signal.SIGTERM, patience=40):
        """Sends a signal and waits for the end; a process that survives the patience is killed."""
        if not self.child or self.child.poll() is not None:
            return
        self.child.send_signal(by)
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def kill(self):
        self.end(signal.SIGKILL)


class Role(Part):
    """A process of Baton with a fixed admin port."""

    PASSWORDS = {"ingress": ("system", "callout", "programs")}

    def __init__(self, kind, number, stack):
        self.kind, self.admin, self.http = kind, f"127.0.0.1:{free_port()}", None
        secrets = stack.folder / "secrets"
        environment = {
            **stack.environment,
            f"BATON_ADMIN__{kind.upper()}": self.admin,
            "BATON_NATS__USER": kind,
            "BATON_NATS__PASSWORD_FILE": str(secrets / f"nats_{kind}_password"),
        }
        if kind == "ingress":
            self.http = f"127.0.0.1:{free_port()}"
            environment["BATON_HTTP__LISTEN"] = self.http
            environment["JWT_SECRET_FILE"] = str(secrets / "jwt_secret")
            for seed in ("callout_seed", "callout_xkey_seed"):
                environment[f"BATON_NATS__{seed.upper()}_FILE"] = str(secrets / f"nats_{seed}")
        for user in self.PASSWORDS.get(kind, ()):
            environment[f"BATON_NATS__{user.upper()}_USER"] = user
            environment[f"BATON_NATS__{user.upper()}_PASSWORD_FILE"] = str(secrets / f"nats_{user}_password")
        super().__init__(f"{kind}-{number}", [PROGRAM, kind], environment)

    def ready(self):
        return request(f"http://{self.admin}/readyz", patience=5)[0] == 200


class Postgres(Part):
    """The server of with-devstack, taken over: it is started again with its own command line and account."""

    def __init__(self, url):
        self.url = url
        (folder,) = re.findall(r"/\S+", sql(url, "show data_directory"))
        pid = (pathlib.Path(folder) / "postmaster.pid").read_text().split()[0]
        proc = pathlib.Path("/proc") / pid
        account = proc.stat()
        super().__init__(
            "postgres", (proc / "cmdline").read_text().split("\0")[:-1], {"LC_ALL": "C"},
            cwd=folder, user=account.st_uid, group=account.st_gid,
        )
        self.folder, self.first = pathlib.Path(folder), int(pid)

    def kill(self):
        """Ends it as `pg_ctl stop -m immediate` does."""
        if self.first:
            os.kill(self.first, signal.SIGQUIT)
            wait_for("the end of PostgreSQL", lambda: not (self.folder / "postmaster.pid").exists())
            self.first = None
        self.end(signal.SIGQUIT)

    def answers(self):
        return subprocess.run(["psql", self.url, "-c", "select 1"], capture_output=True).returncode == 0


def sql(url, statement):
    done = subprocess.run(["psql", url, "-qAtc", statement], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"psql: {done.stderr}")
    return done.stdout


class Stack:
    def __init__(self, superuser_url, nats_server, more):
        WORK.mkdir(parents=True, exist_ok=True)
        self.folder = WORK / "deployment"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.run("init", str(self.folder))
        self.upstream = Upstream()
        self.postgres = Postgres(superuser_url)
        self.superuser_url = superuser_url
        # The roles' users and database are those of `baton init`, in the server of with-devstack.
        self.place = urllib.parse.urlsplit(superuser_url).netloc.rpartition("@")[2]
        self.nats_url = f"nats://127.0.0.1:{free_port()}"
        self.nats = Part("nats", [nats_server, "--config", self.broker()], self.broker_secrets())
        self.certificate = self.folder / "tls/server.pem"
        settings = SETTINGS.replace("@MODELS@", self.upstream.url).replace("@CA@", str(self.certificate))
        (self.folder / "baton.toml").write_text(settings)
        self.environment = {
            "PATH": os.environ["PATH"],
            "BATON_CONFIG": str(self.folder / "baton.toml"),
            "DATABASE_URL": self.database_url("database_url"),
            "NATS_URL": self.nats_url,
            "BATON_LOG__FORMAT": "json",
            # Spans are taken and forgotten, so that histograms have exemplars.
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{self.upstream.url}/spans",
            **more,
        }
        numbers = {"ingress": 2, "worker": 3, "scheduler": 1}
        self.roles = [Role(kind, n, self) for kind, count in numbers.items() for n in range(1, count + 1)]

    def of(self, kind):
        return [role for role in self.roles if role.kind == kind]

    def database_url(self, name):
        url = (self.folder / "secrets" / name).read_text().strip()
        parts = urllib.parse.urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{self.place}").geturl()

    @property
    def owner_url(self):
        return self.database_url("database_migrate_url")

    def broker(self):
        """Adapts the broker's configuration: other addresses, and a user who may change consumers."""
        path = self.folder / "nats/nats.conf"
        text = path.read_text().replace("0.0.0.0:4222", self.nats_url.removeprefix("nats://"))
        text = text.replace("0.0.0.0:8222", f"127.0.0.1:{free_port()}")
        path.write_text(text.replace("store_dir: /data", f"store_dir: {self.folder / 'jetstream'}"))
        accounts = self.folder / "nats/accounts.conf"
        text = accounts.read_text().replace("auth_users: [", "auth_users: [admin, ")
        mark = "      # Users of your own go here"
        accounts.write_text(text.replace(mark, "      { user: admin, password: admin }\n" + mark, 1))
        return str(path)

    def broker_secrets(self):
        lines = (self.folder / "secrets/nats.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def run(self, *arguments, environment=None):
        done = subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"baton {arguments[0]}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def migrate(self):
        password = str(self.folder / "secrets/nats_migrate_password")
        owner = {"DATABASE_MIGRATE_URL": self.owner_url}
        users = {"BATON_NATS__USER": "migrate", "BATON_NATS__PASSWORD_FILE": password}
        self.run("migrate", environment={
            **self.environment, **owner, **users, "DATABASE_ADMIN_URL": self.superuser_url,
        })

    def key(self, name, *limits):
        return self.run("keys", "create", "--tenant", "observed", "--name", name, *limits, environment=self.environment)

    def start(self, *roles):
        """Starts roles, all of them if none is named, and waits until they are ready."""
        roles = roles or self.roles
        for role in roles:
            role.start()
        for role in roles:
            wait_for(role.name, role.ready)

    @contextlib.contextmanager
    def running(self):
        for log in WORK.glob("*.log"):
            log.unlink()
        try:
            self.nats.start()
            wait_for("NATS", self.nats_answers)
            self.migrate()
            self.start()
            yield self
        finally:
            self.upstream.mend()
            for role in self.roles:
                role.end(patience=10)
            self.nats.end(patience=10)
            self.postgres.kill()

    def nats_answers(self):
        host, port = self.nats_url.removeprefix("nats://").split(":")
        with socket.create_connection((host, int(port)), timeout=1):
            return True


def from_devstack(**more):
    """Returns the stack on the servers of with-devstack, which starts this process. `more` is set in each role."""
    try:
        return Stack(os.environ["BATON_TEST_POSTGRES_URL"], os.environ["BATON_TEST_NATS_BIN"], more)
    except KeyError as missing:
        raise SystemExit(f"{missing} is not set: start this by scripts/observe") from None
