# Dropbear's client.
dropbearconvert openssh dropbear "$IDENTITY" key 2>/dev/null
dropbear() { dbclient -y -i key -p "$PORT" "$LOGIN@127.0.0.1" "$@"; }
code=0
out=$(printf x | dropbear 'cat; echo err >&2; exit 6' 2>err) || code=$?
is "$code" 6
is "$out" x
has "$(cat err)" err
random 4 up
dropbear cat <up 2>/dev/null | cmp - up
