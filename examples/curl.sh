#!/bin/sh
# Two questions in one conversation, with curl. Usage: sh curl.sh [BASE_URL] [PROVIDER]
set -eu
base_url=${1:-http://localhost:1337/v1}
provider=${2:-Local}
conversation="curl-$$"

ask() {
  curl --silent --show-error --fail-with-body --no-buffer "$base_url/chat/completions" \
    --header 'Content-Type: application/json' \
    --data "{\"provider\": \"$provider\", \"conversation_id\": \"$conversation\", \"stream\": true,
             \"temperature\": 0, \"max_tokens\": 60, \"messages\": [{\"role\": \"user\", \"content\": \"$1\"}]}"
}

ask 'Hello, i am Heiner. How are you?'
ask 'Tell me somethings about my name'
