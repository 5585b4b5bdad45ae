#!/bin/sh
# Asks whether a text is about food, and prints JSON that matches the schema: examples/food_gate.sh "pizza near me"
set -eu
url=${TIDEGATE_URL:-http://127.0.0.1:3000}/api/requests
text=$(printf '%s' "${1:-pizza near me}" | sed 's/[\\"]/\\&/g' | tr '\n\t' '  ')

ask() { curl -sS -H "Authorization: Bearer ${TIDEGATE_API_KEY:-none}" "$@"; }

answer=$(ask --fail-with-body "$url" -H 'Content-Type: application/json' -d '{
  "messages": [
    {"role": "system", "content": "Decide whether the text is about food, and in which language it is."},
    {"role": "user", "content": "'"$text"'"}
  ],
  "schema": {
    "type": "object",
    "properties": {
      "isFoodRelated": {"type": "boolean"},
      "language": {"enum": ["he", "en", "ru", "ar", "fr", "es", "other"]},
      "confidence": {"type": "number", "minimum": 0, "maximum": 1}
    },
    "required": ["isFoodRelated", "language", "confidence"],
    "additionalProperties": false
  },
  "options": {"temperature": 0, "maxTokens": 64, "promptVersion": "food_gate_v1"}
}') || { printf '%s\n' "$answer" >&2; exit 1; }
id=$(printf '%s' "$answer" | sed -E 's/.*"requestId":"([^"]+)".*/\1/')

end=$(ask -N "$url/$id/events" | sed -n '/^event: \(complete\|error\)/{n;s/^data: //p;}')
case $end in
    *'"coreResult":'*) printf '%s\n' "$end" | sed -E 's/.*"coreResult":(\{[^}]*\}).*/\1/' ;;
    *) printf '%s\n' "$end" >&2; exit 1 ;;
esac
