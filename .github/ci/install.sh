#!/usr/bin/env bash
# Installs actconform and the plugins $PLUGINS from this checkout at pinned versions, then $REQUIREMENTS at whatever versions they have.
set -euo pipefail
read -r -d '' -a plugins <<< "$PLUGINS" || true
packages=("$GITHUB_ACTION_PATH")
for plugin in ${plugins[@]+"${plugins[@]}"}; do # so that an empty list is none in bash 3 too, which macOS has
  folder="$GITHUB_ACTION_PATH/plugins/actconform-${plugin%%[*}"
  if [ ! -f "$folder/pyproject.toml" ]; then
    echo "plugins: there is no plugin '$plugin'; wanted names of folders in plugins/ without actconform-: keras[tensorflow] torch onnxruntime[cpu]" >&2
    exit 2
  fi
  packages+=("$GITHUB_ACTION_PATH/plugins/actconform-$plugin")
done
python -m pip install --quiet --disable-pip-version-check -c "$GITHUB_ACTION_PATH/constraints.txt" "${packages[@]}"
if [ -n "${REQUIREMENTS//[$' \t\r\n']/}" ]; then
  lines="$RUNNER_TEMP/actconform-requirements.txt"
  printf '%s\n' "$REQUIREMENTS" > "$lines"
  python -m pip install --quiet --disable-pip-version-check --upgrade -r "$lines"
fi
