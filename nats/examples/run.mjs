// Submits a run over NATS and prints its answer as it comes.
//
// Messages are published plainly: `js.publish` and `request` of the library never get an answer from Baton,
// which answers on subjects of the run's own.
//
//   NATS_URL=nats://… BATON_API_KEY=bt_… BATON_KEY_ID=… BATON_TENANT=… node run.mjs MODEL INPUT [--cancel]
//
// The key's id and its tenant's are `id` and `tenant` of `GET /v1/auth/me`.
//
// With --cancel the run is cancelled after its first words. Should it wait for a person's decision
// about a call that may have been made already, the call is given up: --decide=retry makes it again.
//
// Needs @nats-io/transport-node (see package.json).

import { randomBytes, randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { connect } from "@nats-io/transport-node";

// A used-up budget says to come back next month.
const PATIENCE = 60;
const ENDS = ["run.completed", "run.failed", "run.cancelled"];

/** A time-ordered UUID. */
function uuid7() {
  const raw = randomBytes(16);
  raw.writeUIntBE(Date.now(), 0, 6);
  raw[6] = (raw[6] & 0x0f) | 0x70;
  raw[8] = (raw[8] & 0x3f) | 0x80;
  return raw.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const sleep = (seconds) => new Promise((wake) => setTimeout(wake, seconds * 1000));

/** What a subscription hears, one message at a time; nothing if it stays silent for so long. */
class Ear {
  #messages;
  #next;

  constructor(subscription) {
    this.#messages = subscription[Symbol.asyncIterator]();
  }

  async hear(seconds) {
    this.#next ??= this.#messages.next();
    let timer;
    const silence = new Promise((wake) => (timer = setTimeout(wake, seconds * 1000)));
    const heard = await Promise.race([this.#next, silence]);
    clearTimeout(timer);
    if (heard) this.#next = undefined;
    return heard?.value;
  }
}

/** One run: its id is drawn here, before there is anything on the server. */
class Run {
  constructor(connection, tenant, keyId) {
    this.connection = connection;
    // The key may publish under its own id, and nothing else may.
    this.sender = `${tenant}.${keyId}`;
    this.id = uuid7();
    // Before anything is asked, so that no answer and no event is missed.
    const ear = (what) => new Ear(connection.subscribe(`${what}.${tenant}.${this.id}`));
    this.replies = ear("replies");
    this.past = ear("past");
    this.live = ear("live");
  }

  /** Publishes until there is an answer: what was lost is said again, and does no harm. */
  async ask(subject, message, answers) {
    for (;;) {
      const id = randomUUID();
      const body = { v: 1, run_id: this.id, ...message, request_id: id };
      this.connection.publish(subject, JSON.stringify(body));
      let answer;
      do {
        answer = (await answers.hear(5))?.json();
      } while (answer && answer.request_id !== id);
      if (!answer) continue;
      if (answer.ok) return answer;
      const { code, message: why, retry_after: after } = answer.error;
      if (!(after <= PATIENCE)) throw new Error(`refused: ${code}: ${why}`);
      await sleep(after);
    }
  }

  submit(request, lane = "interactive") {
    return this.ask(`jobs.${this.sender}.${lane}`, { kind: "submit", request }, this.replies);
  }

  control(verb, fields) {
    return this.ask(`control.${this.sender}.${verb}`, fields, this.replies);
  }

  /** Every event once, in order, to the last: live ones, and what was missed from history. */
  async *events() {
    let last = 0;
    let missing = true;
    for (;;) {
      if (missing) {
        const subject = `history.${this.sender}`;
        const page = await this.ask(subject, { after: last }, this.past);
        for (const event of page.events) {
          last = event.id;
          yield event;
        }
        if (page.done) return;
        missing = page.next_after !== null;
        continue;
      }
      const message = await this.live.hear(5);
      if (!message) {
        missing = true; // A lost last event leaves no gap.
        continue;
      }
      for (const line of message.string().trimEnd().split("\n")) {
        const event = JSON.parse(line);
        if (event.id <= last) continue;
        if (event.prev !== last) {
          missing = true;
          break;
        }
        last = event.id;
        yield event;
        if (ENDS.includes(event.type)) return;
      }
    }
  }
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { cancel: { type: "boolean" }, decide: { type: "string", default: "fail" } },
});
const [model, input] = positionals;
const { NATS_URL, BATON_API_KEY, BATON_KEY_ID, BATON_TENANT } = process.env;
const connection = await connect({
  servers: NATS_URL,
  token: BATON_API_KEY,
  inboxPrefix: `_INBOX_${BATON_TENANT}`,
});
const run = new Run(connection, BATON_TENANT, BATON_KEY_ID);
try {
  await run.submit({ model, input });
  let cancelled = false;
  for await (const { type, data } of run.events()) {
    if (type === "text.delta") {
      process.stdout.write(data.text);
      if (options.cancel && !cancelled) {
        cancelled = true;
        await run.control("cancel", { reason: "heard enough" });
      }
    } else if (type === "attempt.reset" && !data.continues) {
      console.log(`\n[what came after event ${data.resume_after} is withdrawn]`);
    } else if (type === "approval.requested") {
      console.log(`[was ${data.name}(${data.arguments}) done? ${options.decide}]`);
      await run.control("decide", { approval_id: data.approval_id, decision: options.decide });
    } else if (ENDS.includes(type)) {
      console.log(`\n[${run.id} ${type}]`);
    }
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
await connection.close();
