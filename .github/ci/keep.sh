#!/usr/bin/env bash
# Puts the results in $FOLDER where later runs find those of the base branch.
set -euo pipefail
baseline="$RUNNER_TEMP/actconform-baseline/$NAME"
rm -rf "$baseline"
mkdir -p "$baseline"
for name in report.json check.json exports.json; do
  [ ! -f "$FOLDER/$name" ] || cp "$FOLDER/$name" "$baseline/"
done
