# What every case begins with. A case is a script of its own in cases/, which is run by bash in an empty folder with:
#   CONFIG    a configuration of OpenSSH in which `gw` is where to log in, and `inner` is what `-J $JUMP` leads to
#   PORT, LOGIN, IDENTITY, HOST_KEY   the same for clients that read no such file; HOST_KEY is a SHA-256 fingerprint
#   THERE     a folder over there for what is uploaded
#   JUMP      the host to jump over
#   PROGRAMS  the folder with the programs that cases run here and there
set -euo pipefail
trap 'quit' EXIT

# Ends whatever the case has started.
quit() {
  local code=$?
  if [ -S ctl ]; then ssh -F "$CONFIG" -S ctl -O exit gw 2>/dev/null || true; fi
  exec 4>&- 3<&- || true
  jobs -p | xargs -r kill 2>/dev/null || true
  exit "$code"
}

fail() {
  echo "$*" >&2
  exit 1
}

# What this machine lacks is said, and the case left out.
skip() {
  echo "left out: $*" >&2
  exit 77
}

# is ACTUAL WANTED
is() {
  [ "$1" = "$2" ] || fail "line ${BASH_LINENO[0]}: wanted \`$2\`, got \`$1\`"
}

# has TEXT PART
has() {
  case "$1" in *"$2"*) ;; *) fail "line ${BASH_LINENO[0]}: wanted \`$2\` in \`$1\`" ;; esac
}

# OpenSSH, to the gateway: gw COMMAND, or gw OPTIONS -- COMMAND.
gw() {
  local options=()
  for word in "$@"; do
    if [ "$word" = -- ]; then
      while [ "$1" != -- ]; do options+=("$1"); shift; done
      shift
      break
    fi
  done
  ssh -F "$CONFIG" "${options[@]}" gw "$@"
}

# A connection for several sessions, which then say `-S ctl`: master OPTIONS.
master() {
  gw -M -S ctl -fN -o ExitOnForwardFailure=yes "$@" --
}

# A server over there: what it listens on is in $port. It answers HTTP with `hello`, and sends everything else back
# with a `!` behind its end. Its arguments are the server's.
serve_there() {
  mkfifo hold served
  gw "python3 -u -c '$(cat "$PROGRAMS/server.py")' $*" <hold >served &
  exec 4>hold 3<served
  read -r port <&3
}

# The same server on this side.
serve_here() {
  mkfifo hold served
  python3 -u "$PROGRAMS/server.py" "$@" <hold >served &
  exec 4>hold 3<served
  read -r port <&3
}

# A port of this machine that nobody has.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Bytes that nothing compresses: random MEBIBYTES FILE.
random() {
  head -c "$(($1 * 1048576))" /dev/urandom >"$2"
}
