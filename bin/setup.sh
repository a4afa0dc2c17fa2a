# Sourced by the other scripts: makes .venv and installs this checkout with an extra, unless that is done already.
# Usage: source bin/setup.sh EXTRA   (EXTRA may be empty; $PYTHON is the Python to use, python3 by default)
setup_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
setup_stamp="$setup_root/.venv/installed-${1:-plain}"
setup_want=$(cat "$setup_root/pyproject.toml" "$setup_root/constraints.txt" | cksum)
if [ "$(cat "$setup_stamp" 2>/dev/null)" != "$setup_want" ]; then
    echo "Setting up $setup_root/.venv, once. Most of it is PyTorch: 0.3 GB for a CPU, 3 GB where pip finds that for CUDA ..." >&2
    "$setup_root/.venv/bin/python" -P -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 ||
        "${PYTHON:-python3}" -I -m venv --clear "$setup_root/.venv"
    "$setup_root/.venv/bin/python" -P -m pip install --quiet --disable-pip-version-check \
        -c "$setup_root/constraints.txt" -e "$setup_root${1:+[$1]}" >&2
    # the coding loop, which bin/docs has no use for
    [ "${1:-}" = docs ] || PYTHONPATH="$setup_root${PYTHONPATH:+:$PYTHONPATH}" \
        "$setup_root/.venv/bin/python" -P -m tokcodec compile >&2 || true
    echo "$setup_want" >"$setup_stamp"
fi
