# Debian packages and the Python environment, each installed only where it is missing.
# Sourced by `dev`, which gives `say`, `fail`, `CACHE` and `LOCK`.

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -n -- "$@"
  else
    fail "\`$1\` needs root, and there is no sudo." "hint: run this as root once"
  fi
}

has_root() { ((EUID == 0)) || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# need_packages PACKAGE:PROGRAM...: install each Debian package whose program (a name on PATH, or a file) is missing.
need_packages() {
  local pair program missing=()
  for pair in "$@"; do
    program="${pair#*:}"
    [[ -e $program ]] || PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${pair%%:*}")
  done
  if ((${#missing[@]} == 0)); then return; fi
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}, and there is no apt-get to install them." \
    "hint: install them with this system's own package manager"
  say "installing ${missing[*]}"
  if apt_install "${missing[@]}"; then return; fi
  say "refreshing the package lists"
  apt_get update || fail "apt-get could not refresh the package lists: see above."
  apt_install "${missing[@]}" || fail "apt-get could not install ${missing[*]}: see above."
}

# apt and dpkg talk a lot: into a file, which is shown when they fail.
apt_get() {
  local log
  log="$(mktemp)"
  # Closed: our locks, which a daemon that a package starts would hold for its life.
  if as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" \
    </dev/null >"$log" 2>&1 6>&- 7>&- 8>&- 9>&-; then
    rm -f "$log"
    return
  fi
  cat "$log" >&2
  rm -f "$log"
  return 1
}
apt_install() { apt_get install -y --no-install-recommends "$@"; }

# A Python that can make environments, 3.11 or later.
python_program() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# `.venv` with nothing in it but pip.
need_venv() {
  local python
  if [[ -x .venv/bin/python ]] && .venv/bin/python -m pip --version >/dev/null 2>&1; then return; fi
  if ! python="$(python_program)"; then
    need_packages python3:python3 python3-venv:/nonexistent
    python="$(python_program)" || fail "this needs Python 3.11 or later; found: $(python3 --version 2>&1)."
  fi
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

# `.venv` as the lock says. A stamp of the lock and of pyproject.toml makes a second call cost nothing.
need_environment() {
  local stamp
  stamp="$(cat "$LOCK" pyproject.toml | sha256sum | cut -d' ' -f1)"
  if [[ -e .venv/.installed && "$(<.venv/.installed)" == "$stamp" ]]; then return; fi
  exec 6<.
  flock 6
  if [[ ! -e .venv/.installed || "$(<.venv/.installed)" != "$stamp" ]]; then
    need_venv
    say "installing $LOCK into .venv"
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --requirement "$LOCK" >&2
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable . >&2
    echo "$stamp" >.venv/.installed
  fi
  exec 6<&-
}
