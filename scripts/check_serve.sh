#!/usr/bin/env bash
# Asks `tcn serve` as OpenAI's own client does, and drives its page in Chromium.
#
#   apt-get install chromium chromium-driver
#   python3 -m venv venv && venv/bin/pip install openai selenium
#   venv/bin/pip install --no-deps axe-playwright-python    # for axe-core's rules, which it contains
#   scripts/check_serve.sh venv/bin/python [--screenshots FOLDER]
set -euo pipefail
python=$1
shift
scripts=$(dirname "$0")
tcn=${TCN:-"$scripts/../target/release/tcn"}

address=$(mktemp)
"$tcn" serve --port 0 --log off >"$address" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -f "$address"' EXIT
until [ -s "$address" ]; do
  kill -0 $server # it has not ended
  sleep 0.1
done
url=$(cat "$address")
axe=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/axe_playwright_python/axe.min.js")')
[ -e "$axe" ] && rules=(--axe "$axe") || { rules=() && echo "NOT TESTED: the page by axe-core's rules" >&2; }

"$python" "$scripts/serve_with_openai.py" "$url"
"$python" "$scripts/page_test.py" "$url/" "${rules[@]}" --stop-command "kill $server" "$@"
