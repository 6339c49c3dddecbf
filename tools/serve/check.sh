#!/usr/bin/env bash
# Starts `sparse serve` on SmolLM2 and MiniLM, and asks it through OpenAI's Python package; then the load test, for the
# seconds in $1 (0 leaves it out), on SmolLM2 and on the story model.
#   PYTHON=target/reference-venv/bin/python bash tools/serve/check.sh 20
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
sparse=${SPARSE:-target/release/sparse}
seconds=${1:-20}

# Runs a command with the address of a server with these arguments: with_server "ARGUMENTS" COMMAND...
with_server() {
    local log
    log=$(mktemp)
    # shellcheck disable=SC2086
    "$sparse" serve --port 0 $1 2>"$log" &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || true' EXIT
    shift
    until url=$(sed -n 's/^listening on //p' "$log") && [ -n "$url" ]; do
        kill -0 "$pid" || { cat "$log"; exit 1; }
        sleep 0.1
    done
    "$@" "$url/v1"
    kill -TERM "$pid"
    wait "$pid"
    trap - EXIT
}

load() { "$python" tools/serve/load.py "$1" --pid "$pid" --seconds "$seconds"; }
ask() { "$python" tools/serve/check_openai.py "$1" --embeddings; }

smol="-m models/SmolLM2-135M-Instruct.Q4_1.gguf"
with_server "$smol --encoder models/all-MiniLM-L6-v2" ask
if [ "$seconds" -gt 0 ]; then
    with_server "$smol" load
    with_server "" load
fi
