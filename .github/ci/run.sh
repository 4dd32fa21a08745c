#!/usr/bin/env bash
# Runs the cases $PATTERNS on $BACKENDS, or checks $MODEL in them; outputs the folder of the results, and how the command ended: 0 or 1.
set -euo pipefail
case "$NAME" in
  '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | *--*) echo "name: wanted letters, digits and . _ - without --, got '$NAME'" >&2; exit 2 ;;
esac
if [ -n "$MODEL" ] && [ -n "$PATTERNS" ]; then
  echo "patterns select cases of a run, and model is checked in place of a run: give one of them, and use the action twice for both" >&2
  exit 2
fi
read -r -d '' -a backends <<< "$BACKENDS" || true
read -r -d '' -a patterns <<< "$PATTERNS" || true
read -r -d '' -a options <<< "$OPTIONS" || true
folder="$RUNNER_TEMP/actconform/$NAME"
rm -rf "$folder"
if [ -n "$MODEL" ]; then
  words=(check --html) each=--runtime
else
  words=(run) each=--backend
fi
# ${list[@]+...}: an empty list is none in bash 3 too, which macOS has
words+=(--out "$folder" ${options[@]+"${options[@]}"})
for backend in ${backends[@]+"${backends[@]}"}; do
  words+=("$each" "$backend")
done
words+=(-- ${patterns[@]+"${patterns[@]}"})
[ -z "$MODEL" ] || words+=("$MODEL")
ended=0
python -m actconform "${words[@]}" || ended=$?
[ "$ended" -le 1 ] || exit "$ended"
printf 'folder=%s\nended=%s\n' "$folder" "$ended" >> "$GITHUB_OUTPUT"
