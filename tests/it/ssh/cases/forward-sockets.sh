# Unix sockets, in both directions.
# needs: sshd
serve_there "$THERE/server-$$.sock"
master -L "$PWD/l.sock:$port"
is "$(curl -sS --unix-socket l.sock http://there/)" hello
exec 4>&- 3<&-
rm hold served
serve_here "$PWD/here.sock"
ssh -F "$CONFIG" -S ctl -O forward -R "$THERE/back-$$.sock:$port" gw
is "$(gw -S ctl -- "curl -sS --unix-socket $THERE/back-$$.sock http://here/")" hello
