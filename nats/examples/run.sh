#!/usr/bin/env bash
# Submits a run over NATS and prints its answer as it comes: with bash and jq alone, for NATS's
# protocol is lines of text. It knows no TLS: for that, take one of the other examples. Messages are
# published plainly: `js.publish` and `request` of a client library never get an answer from Baton, which
# answers on subjects of the run's own.
#
#   NATS_URL=nats://… BATON_API_KEY=bt_… BATON_KEY_ID=… BATON_TENANT=… ./run.sh MODEL INPUT [--cancel]
#
# The key's id and its tenant's are `id` and `tenant` of `GET /v1/auth/me`.
#
# With --cancel the run is cancelled after its first words. Should it wait for a person's decision
# about a call that may have been made already, the call is given up: --decide=retry makes it again.
set -euo pipefail
export LC_ALL=C # NATS counts bytes
model=$1 input=$2 cancel='' decide=fail
for option in "${@:3}"; do
    case $option in
    --cancel) cancel=1 ;;
    --decide=*) decide=${option#*=} ;;
    esac
done

address=${NATS_URL#nats://}
exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
say() { printf '%s\r\n' "$1" >&3; }
publish() { # subject, payload
    say "PUB $1 ${#2}"
    say "$2"
}

# A UUIDv7: the time, then random.
random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
printf -v time '%012x' "$(date +%s%3N)"
run=${time:0:8}-${time:8:4}-7${random:0:3}-8${random:3:3}-${random:6:12}
about=$BATON_TENANT.$run
sender=$BATON_TENANT.$BATON_KEY_ID # the key may publish under its own id, and nothing else may

say "CONNECT $(jq -nc --arg key "$BATON_API_KEY" '{auth_token: $key, verbose: false, name: "run.sh"}')"
say "SUB replies.$about 1"
say "SUB past.$about 2"
say "SUB live.$about 3"

submission=$(jq -nc --arg run "$run" --arg model "$model" --arg input "$input" \
    '{v: 1, kind: "submit", run_id: $run, request: {model: $model, input: $input}}')
last=0 heard=
submit() { publish "jobs.$sender.interactive" "$submission"; }
ask_history() { publish "history.$sender" "{\"v\":1,\"run_id\":\"$run\",\"after\":$last}"; }
submit

take() { # one event, in order
    local event=$1 id kind
    id=$(jq .id <<<"$event") kind=$(jq -r .type <<<"$event")
    ((id > last)) || return 0
    last=$id
    case $kind in
    text.delta)
        jq -j .data.text <<<"$event"
        if [[ $cancel && ! $heard ]]; then
            publish "control.$sender.cancel" "{\"v\":1,\"run_id\":\"$run\",\"reason\":\"heard enough\"}"
        fi
        heard=1
        ;;
    attempt.reset)
        jq -r 'select(.data.continues | not)
            | "\n[what came after event \(.data.resume_after) is withdrawn]"' <<<"$event"
        ;;
    approval.requested)
        jq -r --arg decide "$decide" \
            '"[was \(.data.name)(\(.data.arguments)) done? \($decide)]"' <<<"$event"
        publish "control.$sender.decide" \
            "$(jq -c --arg decide "$decide" --arg run "$run" \
                '{v: 1, run_id: $run, approval_id: .data.approval_id, decision: $decide}' <<<"$event")"
        ;;
    run.completed | run.failed | run.cancelled)
        printf '\n[%s %s]\n' "$run" "$kind"
        exit
        ;;
    esac
}

accepted=
while :; do
    # Whatever is lost is asked for again, and does no harm.
    if ! IFS= read -r -t 5 line <&3; then
        if [[ $accepted ]]; then ask_history; else submit; fi
        continue
    fi
    read -r word _ sid size rest <<<"${line%$'\r'}"
    case $word in
    PING) say PONG ;;
    -ERR) echo "${line%$'\r'}" >&2 && exit 1 ;;
    MSG)
        IFS= read -r -N "${rest:-$size}" payload <&3
        IFS= read -r _ <&3
        case $sid in
        1) # an answer to a submission, a cancel or a decision
            if [[ $(jq .ok <<<"$payload") != true ]]; then
                jq -r '"refused: \(.error.code): \(.error.message)"' <<<"$payload" >&2
                exit 1
            fi
            if [[ ! $accepted ]]; then accepted=1 && ask_history; fi
            ;;
        2) # a page of what has happened so far
            while IFS= read -r event; do take "$event"; done < <(jq -c '.events[]' <<<"$payload")
            if [[ $(jq .next_after <<<"$payload") != null ]]; then ask_history; fi
            ;;
        3) # what happens, a line for each event; the first to follow names the last one seen
            while IFS= read -r event; do
                if (($(jq .prev <<<"$event") > last)); then ask_history && break; fi
                take "$event"
            done <<<"${payload%$'\n'}"
            ;;
        esac
        ;;
    esac
done
