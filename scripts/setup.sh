# Sourced by rlrun and test, which set $self to their own path: keeps .venv at the repository's root up to date.
#
# RLRUN_PIP_ARGS: more arguments for pip, when it runs. On Linux, PyPI's torch brings gigabytes of CUDA libraries;
# a machine without an NVIDIA GPU is better served by an index of CPU builds: RLRUN_PIP_ARGS="--extra-index-url URL".

root=${self%/scripts/*}
venv=$root/.venv

die() {
  echo "rlrun: $*" >&2
  exit 1
}

# The first Python from 3.11 to 3.13 (not every dependency has wheels for newer ones yet), else any newer one.
find_python() {
  local last candidate
  for last in 13 99; do
    for candidate in python3 python3.13 python3.12 python3.11; do
      "$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $last))" 2>/dev/null &&
        echo "$candidate" && return
    done
  done
  return 1
}

# setup EXTRAS: install the package with these extras, unless that was done since what it depends on last changed.
setup() {
  local stamp="$venv/.rlrun-$1" want python pins="" line
  want=$({ echo "$root" && cat "$root/pyproject.toml" "$root/scripts/constraints.txt"; } | cksum)
  if [ -x "$venv/bin/rlrun" ] && [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(<"$stamp")" = "$want" ]; then
    return
  fi

  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || die "needs Python 3.11 or newer on the PATH (python3: $(python3 --version 2>/dev/null || echo none))"
    echo "rlrun: creating $venv" >&2
    "$venv/bin/python" -c "" 2>/dev/null || rm -f "$venv"/bin/python*  # links to a Python that is gone
    "$python" -m venv "$venv" >&2 || die "could not create $venv"
  fi

  echo "rlrun: installing into $venv (the first time this takes minutes)" >&2
  rm -f "$stamp"
  # The pins are right for these; elsewhere pip chooses by pyproject.toml.
  "$venv/bin/python" -c 'import platform as p, sys
sys.exit((p.system(), p.machine()) not in {("Linux", "x86_64"), ("Darwin", "arm64")} or sys.version_info >= (3, 14))' &&
    pins="-c scripts/constraints.txt"
  # shellcheck disable=SC2086  # $pins and $RLRUN_PIP_ARGS are lists of words
  (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile -e ".[$1]" $pins ${RLRUN_PIP_ARGS-}) |
    while read -r line; do
      case $line in
        *Downloading*MB\)* | Installing\ collected*) echo "  ${line:0:100}" >&2 ;;
      esac
    done || die "the installation failed; the same command tries again"
  # On all cores, where pip uses one. A few files of torch are templates, which do not compile.
  "$venv/bin/python" -W ignore -m compileall -qq -j 0 "$venv"/lib/python*/site-packages || true
  echo "$want" >"$stamp"  # last, so that an interrupted installation is taken up again
}
