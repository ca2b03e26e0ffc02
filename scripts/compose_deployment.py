"""A deployment under test: the folder that `baton init` writes, run by Compose."""

import shutil
import socket
import sys
import tempfile
import uuid
from pathlib import Path

from compose_engine import run
from compose_load import PATIENCE, Client

PERSON = {"email": "ada@example.com", "password": "a long horse, and a battery"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """The delivered files, unchanged but for .env, and for the limit of requests of one address."""

    def __init__(self, image, binary, files=()):
        self.folder = Path(tempfile.mkdtemp(prefix="baton-compose-"))
        self.files = ("compose.yaml", *files, "compose.dev.yaml")
        self.project = f"baton-test-{uuid.uuid4().hex[:8]}"
        run(str(binary), "init", str(self.folder))
        self.port = free_port()
        self.plain_port = free_port()
        values = {
            "BATON_IMAGE": image,
            "HTTP_BIND": "127.0.0.1",
            "HTTP_PORT": str(self.plain_port),
            "HTTPS_PORT": str(self.port),
        }
        path = self.folder / ".env"
        lines = path.read_text().splitlines()
        lines = [line for line in lines if line.split("=")[0] not in values]
        path.write_text("\n".join(lines + [f"{name}={value}" for name, value in values.items()]) + "\n")
        # All of the load comes from one address.
        settings = self.folder / "baton.toml"
        settings.write_text(settings.read_text().replace("per_ip_per_minute = 600", "per_ip_per_minute = 0"))

    def compose(self, *arguments, check=True):
        files = [part for file in self.files for part in ("--file", file)]
        return run(
            "docker", "compose", "--project-name", self.project, *files, *arguments,
            check=check, cwd=self.folder,
        )

    def images(self):
        return set(self.compose("config", "--images").stdout.split())

    def up(self, workers=2):
        done = self.compose(
            "up", "--detach", "--wait", "--wait-timeout", str(PATIENCE), "--no-recreate",
            "--scale", f"worker={workers}", check=False,
        )
        if done.returncode:
            logs = self.compose("logs", "--tail", "40", check=False).stdout
            states = self.compose("ps", "--all", check=False).stdout
            sys.exit(f"compose-test: the deployment does not start\n{done.stderr}\n{states}\n{logs}")

    def services(self):
        return self.compose("config", "--services").stdout.split()

    def containers(self, service):
        return self.compose("ps", "--all", "--quiet", service).stdout.split()

    def logs(self, service):
        return self.compose("logs", "--no-log-prefix", service).stdout

    def must_have_ended_well(self, container, service):
        code = int(run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout)
        if code:
            logs = run("docker", "logs", "--tail", "40", container, check=False)
            sys.exit(f"compose-test: {service} ended with {code}\n{logs.stdout}{logs.stderr}")

    def cli(self, *arguments):
        return self.compose("run", "--rm", "--no-TTY", "cli", *arguments).stdout

    def kill(self, service):
        (container,) = self.containers(service)
        run("docker", "kill", container)
        return container

    def replace(self, service, workers, between):
        """Replaces a service's containers one by one, as docs/deploy.md has it."""
        for container in self.containers(service):
            run("docker", "stop", container)
            self.must_have_ended_well(container, service)
            run("docker", "rm", container)
            self.up(workers)
            between()

    def walk_through(self):
        """Registers and signs in a person, makes a key, chats; returns a client with the key."""
        printed = self.cli("users", "bootstrap")
        token = next(word for word in printed.split() if word.startswith("bb_"))
        client = Client(self)
        client.must(201, "POST", "/v1/auth/register", {**PERSON, "token": token, "name": "Ada"})
        signed_in = client.must(200, "POST", "/v1/auth/login", PERSON)
        ada = Client(self, signed_in["access_token"])
        ada.must(200, "GET", "/v1/auth/me")
        key = ada.must(201, "POST", "/v1/api-keys", {"name": "walk-through", "scopes": ["*"]})
        client = Client(self, key["key"])
        client.chat()
        return client

    def remove(self):
        self.compose("down", "--volumes", "--timeout", "5", check=False)
        shutil.rmtree(self.folder)
