# -R with a port that the other side chooses, to a server on this side; and its end.
# needs: sshd
serve_here
master
there=$(ssh -F "$CONFIG" -S ctl -O forward -R "0:127.0.0.1:$port" gw)
is "$(gw -S ctl -- "curl -sS http://127.0.0.1:$there/")" hello
is "$(gw "printf ping | python3 -c '$(cat "$PROGRAMS/echo.py")' $there")" 'ping!'
ssh -F "$CONFIG" -S ctl -O cancel -R "0:127.0.0.1:$port" gw
code=0
gw "curl -sS http://127.0.0.1:$there/" 2>/dev/null || code=$?
is "$code" 7
