# -W, and what is told where nobody listens.
# needs: sshd
serve_there
is "$(printf ping | gw -W "127.0.0.1:$port" --)" 'ping!'
code=0
gw -o LogLevel=INFO -W 127.0.0.1:1 -- </dev/null 2>err || code=$?
is "$code" 255
has "$(cat err)" 'open failed: connect failed: Connection refused'
