# A Docker Engine in swarm mode with the overlay network `proxy`: use what runs, start what is missing.
# Sourced by `dev`, which gives `say`, `fail`, `as_root` and `need_packages`. Nothing is assumed blank: an earlier
# session may have been killed and left its pid files, its data directory, its swarm or its network.

ENGINE_SOCKET=/var/run/docker.sock
ENGINE_DEADLINE_SECONDS=90

engine_answers() {
  docker info --format '{{.ServerVersion}}' >/dev/null 2>&1
}

# Bring up engine, swarm and network; a second call costs three questions to the engine.
engine_up() {
  local state_dir="${XDG_STATE_HOME:-$HOME/.local/state}/coopcloud-ci"
  mkdir -p "$state_dir"
  exec 8>"$state_dir/engine.lock"
  flock 8
  engine_answers || engine_start "$state_dir/dockerd.log"
  engine_swarm
  engine_network
  exec 8>&-
}

engine_start() {
  local log="$1"
  need_packages docker.io:dockerd iptables:iptables
  # The package starts the engine itself where systemd runs.
  if engine_answers; then return; fi
  if [[ -S $ENGINE_SOCKET && ! -w $ENGINE_SOCKET ]] && { ! has_root || as_root docker info >/dev/null 2>&1; }; then
    fail "there is a Docker Engine, but $(id -un) may not talk to it." \
      "hint: \`sudo usermod -aG docker $(id -un)\`, then log in again"
  fi
  if [[ -d /run/systemd/system ]]; then
    say "starting the Docker Engine with systemd"
    as_root systemctl start docker || fail "systemd could not start the Docker Engine." \
      "hint: see \`journalctl -u docker\`"
    engine_answers || fail "the Docker Engine was started by systemd and does not answer \`docker info\`."
    return
  fi
  engine_clear_stale /var/run/docker.pid dockerd
  if engine_waits_for_other; then return; fi
  engine_clear_stale /var/run/docker/containerd/containerd.pid containerd
  if engine_spawn "$log"; then return; fi
  if [[ ${CI:-} == true ]] && grep -q '^panic\|swarmkit.*raft' "$log" && as_root test -d /var/lib/docker/swarm; then
    # A raft log that was cut short by a power loss ends the engine at each start. In CI nothing in it is missed.
    say "the engine cannot read its swarm: putting /var/lib/docker/swarm aside, starting again"
    as_root mv /var/lib/docker/swarm "/var/lib/docker/swarm.broken-$(date +%s)"
    if engine_spawn "$log"; then return; fi
  fi
  printf '%s\n' "--- the last lines of $log" >&2
  tail -n 25 "$log" >&2
  fail "the Docker Engine did not come up (deadline: $ENGINE_DEADLINE_SECONDS s)." \
    "hint: this needs root (or sudo), cgroups and iptables; an engine that runs already is used as it is"
}

# Remove a pid file whose process is gone, or is another program by now: dockerd believes any living pid.
engine_clear_stale() {
  local file="$1" program="$2" pid
  [[ -e $file ]] || return 0
  pid="$(<"$file")"
  if [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/comm && "$(<"/proc/$pid/comm")" == "$program" ]]; then
    return 0
  fi
  say "removing the stale $file (process ${pid:-unknown} is no $program)"
  as_root rm -f "$file"
}

# Somebody else's dockerd may be on its way up: true when it answers.
engine_waits_for_other() {
  local deadline=$((SECONDS + 30))
  while [[ -e /var/run/docker.pid ]] && ((SECONDS < deadline)); do
    if engine_answers; then return; fi
    sleep 0.2 # its log is not ours to read
  done
  return 1
}

# Start dockerd and wait until it listens; false when it does not.
engine_spawn() {
  local log="$1" pid tail_pid descriptor options=()
  # An operator's own configuration wins; the same setting in both places would be refused.
  if [[ ! -e /etc/docker/daemon.json ]]; then
    options+=(--log-opt max-size=10m --log-opt max-file=2)
  fi
  # The user who starts it may use it.
  [[ $EUID -eq 0 ]] || options+=(--group "$(id -gn)")
  say "starting a Docker Engine (log: $log)"
  : >"$log"
  (
    # No descriptor of ours may live on in the engine: a caller that reads our output would wait for its end.
    for descriptor in /proc/"$BASHPID"/fd/*; do
      descriptor="${descriptor##*/}"
      if ((descriptor > 2)); then eval "exec $descriptor>&-"; fi
    done
    as_root env "PATH=$PATH:/usr/sbin:/sbin" setsid dockerd "${options[@]}" </dev/null >>"$log" 2>&1 &
    echo "$!" >"$log.pid"
  ) </dev/null >/dev/null 2>&1
  pid="$(<"$log.pid")"
  rm -f "$log.pid"
  # dockerd says when it listens; tail hears each line as it is written and ends when dockerd does.
  exec {descriptor}< <(exec tail -n +1 -s 0.2 -F --pid="$pid" "$log" 2>/dev/null)
  tail_pid=$!
  timeout "$ENGINE_DEADLINE_SECONDS" grep -q -m1 'API listen on' <&"$descriptor" || true
  kill "$tail_pid" 2>/dev/null || true
  exec {descriptor}<&-
  engine_answers
}

engine_swarm() {
  local state deadline=$((SECONDS + 20))
  while state="$(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}')" &&
    [[ $state == pending* ]] && ((SECONDS < deadline)); do
    sleep 0.2 # a manager that comes back tells nobody
  done
  case "$state" in
    "active true") return ;;
    inactive*) ;;
    pending* | error*)
      # A manager that was killed may come back unable to (its certificate ran out, its address is gone).
      [[ ${CI:-} == true ]] || fail "the engine's swarm is in state \"$state\"." \
        "hint: if nothing in it is needed, \`docker swarm leave --force\` and run this again"
      say "the engine's swarm is in state \"$state\": making a new one"
      docker swarm leave --force >/dev/null
      ;;
    *) fail "this engine is part of a swarm but no manager of it (\"$state\")." "hint: run on a manager" ;;
  esac
  say "initialising the swarm"
  docker swarm init --advertise-addr 127.0.0.1 >/dev/null
}

engine_network() {
  local driver
  driver="$(docker network inspect proxy --format '{{.Driver}}' 2>/dev/null)" || driver=""
  case "$driver" in
    overlay) return ;;
    "") ;;
    *) fail "the network \`proxy\` exists with driver \"$driver\"; recipes need an overlay." ;;
  esac
  say "creating the overlay network proxy"
  # A /16, because an address that an engine loses track of stays taken and a /24 has 253 of them. Where that range
  # is in use, the engine's own choice will do.
  docker network create -d overlay --attachable --subnet 10.231.0.0/16 proxy >/dev/null 2>&1 ||
    docker network create -d overlay --attachable proxy >/dev/null
}
