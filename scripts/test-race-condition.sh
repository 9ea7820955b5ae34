#!/usr/bin/env bash
# Two parallel requests on one payment: exactly one may win. Demo mode: elsewhere nobody is believed who only says
# who they are.
#   darkroom dev order --telegram-user 123 --avatar 456 --paid
#   scripts/test-race-condition.sh http://127.0.0.1:8000 123 456
set -euo pipefail

address=${1:-http://127.0.0.1:8000}
telegram_user=${2:-123}
avatar=${3:-456}
body="{\"telegramUserId\": $telegram_user, \"avatarId\": $avatar, \"styleId\": \"signature\", \"useStoredReferences\": true}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for number in 1 2; do
    curl --silent --max-time 20 --output "$folder/$number" \
        --header 'Content-Type: application/json' --data "$body" "$address/api/generate" &
done
wait

# A grep that finds nothing is an answer, not the end of the script.
won=$(cat "$folder"/1 "$folder"/2 | { grep -o '"success":true' || true; } | wc -l)
consumed=$({ grep -l 'PAYMENT_CONSUMED' "$folder"/1 "$folder"/2 || true; } | wc -l)
for number in 1 2; do
    printf 'request %s: %s\n' "$number" "$(cat "$folder/$number")"
done
if [ "$won" -eq 1 ] && [ "$consumed" -eq 1 ]; then
    echo "OK: one job, one PAYMENT_CONSUMED"
    exit 0
fi
echo "FAIL: $won won, $consumed were told PAYMENT_CONSUMED" >&2
exit 1
