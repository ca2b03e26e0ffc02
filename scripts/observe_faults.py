"""The faults that alerts are for. Each is a context: entering it breaks something, leaving it mends that."""

import asyncio
import contextlib
import json
import signal
import subprocess
import threading
import time

import nats
from observe_stack import WORK, request, sql, wait_for

MANY = 16


@contextlib.contextmanager
def model_server_fails(stack, clients):
    """The model server answers 500."""
    stack.upstream.fails = True
    yield
    stack.upstream.mend()


@contextlib.contextmanager
def model_server_slow(stack, clients):
    """The model server takes 6 s to the first token."""
    stack.upstream.first_token = 6
    yield
    stack.upstream.mend()


@contextlib.contextmanager
def postgres_away(stack, clients):
    """PostgreSQL ends at once, as by a crash."""
    stack.postgres.kill()

    # Chats that are open now wait until it is back.
    def step():
        clients.quietly_ask(0)
        time.sleep(0.2)

    yield step
    stack.postgres.start()
    wait_for("PostgreSQL", stack.postgres.answers)


@contextlib.contextmanager
def nats_away(stack, clients):
    """NATS is killed."""
    stack.nats.kill()
    yield
    stack.nats.start()
    wait_for("NATS", stack.nats_answers)


def killed(kind, count=None):
    @contextlib.contextmanager
    def fault(stack, clients):
        roles = stack.of(kind)[:count]
        for role in roles:
            role.kill()
        yield
        stack.start(*roles)

    fault.__doc__ = f"{'Every' if count is None else count} {kind} is killed and stays away."
    return fault


@contextlib.contextmanager
def no_workers_and_a_queue(stack, clients):
    """All workers are killed, and runs of both lanes wait."""
    workers = stack.of("worker")
    for worker in workers:
        worker.kill()
    for number in range(4):
        clients.run("Say something.", number, lane=("interactive", "background")[number % 2])
    yield
    stack.start(*workers)


@contextlib.contextmanager
def every_slot_taken(stack, clients):
    """The model server answers one word and stops; more runs come than there are slots."""
    stack.upstream.hold()
    runs = [clients.run("Say something.", number) for number in range(2 * MANY)]
    yield
    for run in runs:
        clients.cancel(run)
    stack.upstream.release()


@contextlib.contextmanager
def workers_killed_again_and_again(stack, clients):
    """Workers are killed at work and started again, one after the other."""
    workers = stack.of("worker")
    stack.upstream.hold()
    runs = [clients.run("Say something.", number) for number in range(MANY)]
    number = 0

    # In this thread, because a process dies with the thread that started it.
    def step():
        nonlocal number
        worker = workers[number % len(workers)]
        number += 1
        worker.kill()
        stack.start(worker)

    yield step
    for run in runs:
        clients.cancel(run)
    stack.upstream.release()


@contextlib.contextmanager
def drain_too_short(stack, clients):
    """A worker is asked to stop while its model server has stopped in the middle of answers."""
    stack.upstream.hold()
    runs = [clients.run("Say something.", number) for number in range(MANY)]
    (worker, *_) = stack.of("worker")
    wait_for("runs of the worker", lambda: metric(worker, "baton_worker_active_runs") > 0)
    worker.end()
    yield
    for run in runs:
        clients.cancel(run)
    stack.upstream.release()
    stack.start(worker)


def metric(role, name):
    _, metrics = request(f"http://{role.admin}/metrics")
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(f"{name} "))


@contextlib.contextmanager
def nobody_decides(stack, clients):
    """A run asks for a call that needs approval."""
    run = clients.run("Tell me the current_time.")
    yield
    clients.cancel(run)


@contextlib.contextmanager
def budget_used_up(stack, clients):
    """A key with a budget of one token asks for runs."""

    def step():
        clients.ask("Too much.", key=clients.budgeted)
        time.sleep(0.5)

    yield step


@contextlib.contextmanager
def rows_locked(stack, clients):
    """A session of PostgreSQL holds a lock on the table of runs."""
    held = subprocess.Popen(["psql", stack.owner_url, "-qc", "begin; lock table runs; select pg_sleep(300)"], stderr=subprocess.PIPE)

    def step():
        asks = [threading.Thread(target=clients.quietly_ask, args=(number,)) for number in range(MANY)]
        for ask in asks:
            ask.start()
        time.sleep(1)

    yield step
    held.send_signal(signal.SIGINT)
    held.communicate()


@contextlib.contextmanager
def nobody_may_update_runs(stack, clients):
    """The right of the roles to update runs is revoked."""
    grants = "select distinct grantee from information_schema.role_table_grants where table_name = 'runs'"
    user = sql(stack.owner_url, f"{grants} and privilege_type = 'UPDATE' and grantee <> current_user").strip()
    sql(stack.owner_url, f"revoke update on runs from {user}")
    yield
    sql(stack.owner_url, f"grant update on runs to {user}")


def with_broker(stack, task, **user):
    async def connected():
        connection = await nats.connect(stack.nats_url, **user)
        try:
            await task(connection)
            await connection.flush()
        finally:
            await connection.close()

    asyncio.run(connected())


@contextlib.contextmanager
def unreadable_submissions(stack, clients):
    """A program publishes submissions that cannot be read."""
    _, me = request(f"{clients.url()}/v1/auth/me", headers={"authorization": f"Bearer {clients.key}"})
    me = json.loads(me)

    async def publish(connection):
        await connection.publish(f"jobs.{me['tenant']}.{me['id']}.interactive", b"not JSON")

    def step():
        with_broker(stack, publish, token=clients.key)
        time.sleep(1)

    yield step


@contextlib.contextmanager
def consumer_with_a_delivery_limit(stack, clients):
    """Somebody limits a consumer to one delivery, and a worker that holds jobs dies."""
    durable = "worker-interactive"

    def limit(deliveries):
        async def change(connection):
            jetstream = connection.jetstream()
            config = (await jetstream.consumer_info("JOBS", durable)).config
            config.max_deliver = deliveries
            await jetstream.add_consumer("JOBS", config)

        with_broker(stack, change, user="admin", password="admin")

    async def remove_stranded(connection):
        for line in (WORK / "scheduler-1.log").read_text().splitlines():
            line = json.loads(line)
            if line["message"] == "a message is stranded in JOBS":
                with contextlib.suppress(nats.js.errors.APIError):  # The line is repeated.
                    await connection.jetstream().delete_msg("JOBS", line["job.seq"])

    stack.upstream.hold()
    runs = [clients.run("Say something.", number) for number in range(MANY)]
    limit(1)
    (worker, *_) = stack.of("worker")
    worker.kill()
    yield
    limit(-1)
    stack.start(worker)
    for run in runs:
        clients.cancel(run)
    stack.upstream.release()
    # As the runbook has it, by the user who may; jobs are stranded one by one, when their ack wait is over.
    password = (stack.folder / "secrets/nats_scheduler_password").read_text().strip()
    user = {"user": "scheduler", "password": password, "inbox_prefix": b"_INBOX_scheduler"}

    def removed():
        with_broker(stack, remove_stranded, **user)
        return metric(scheduler, "baton_jobs_stranded") == 0

    (scheduler,) = stack.of("scheduler")
    wait_for("JOBS without stranded messages", removed)


@contextlib.contextmanager
def certificate_ends(stack, clients):
    """The authority of the model server ends in two days."""
    file = stack.certificate
    renewed = file.read_text()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    new += ["-subj", "/CN=localhost", "-days", "2", "-keyout", "/dev/null", "-out", str(file)]
    subprocess.run(new, check=True, capture_output=True)
    yield
    file.write_text(renewed)


# Each fault with the alerts that it must fire, by severity. The slow model server comes first: later, the window of
# six hours would be full of quick chats.
FAULTS = [
    (model_server_slow, ["BatonFirstEventSlow page", "BatonFirstEventSlow ticket"]),
    (model_server_fails, ["BatonModelErrors page", "BatonRunsFail page", "BatonRunsFail ticket"]),
    (postgres_away, ["BatonPostgresAway page", "BatonRequestsFail page", "BatonRequestsFail ticket"]),
    (nats_away, ["BatonNatsAway page"]),
    (killed("scheduler"), ["BatonNoScheduler page"]),
    (killed("ingress", 1), ["BatonRoleDown ticket"]),
    (no_workers_and_a_queue, ["BatonNoWorkers page", "BatonQueueOld page interactive", "BatonQueueOld page background"]),
    (every_slot_taken, ["BatonWorkersFull ticket"]),
    (workers_killed_again_and_again, ["BatonTakeovers ticket"]),
    (drain_too_short, ["BatonDrainCut ticket"]),
    (nobody_decides, ["BatonApprovalsOld ticket"]),
    (budget_used_up, ["BatonBudgetsUsedUp ticket"]),
    (rows_locked, ["BatonPoolExhausted page"]),
    (nobody_may_update_runs, ["BatonDutiesFail ticket"]),
    (unreadable_submissions, ["BatonDeadLetters ticket"]),
    (certificate_ends, ["BatonCertificateEnds ticket"]),
    (consumer_with_a_delivery_limit, ["BatonJobsStranded ticket"]),
]
