# As VS Code's remote extension does: a shell that is fed commands, without a terminal, with a SOCKS forward.
# needs: sshd
serve_there
socks=$(free_port)
mkfifo commands
gw -T -D "127.0.0.1:$socks" -- sh <commands >output &
exec 5>commands
echo 'echo ready' >&5
until grep -q ready output; do :; done
is "$(curl -sS --socks5-hostname "127.0.0.1:$socks" "http://localhost:$port/")" hello
echo 'echo second; exit 9' >&5
code=0
wait "$!" || code=$?
is "$code" 9
has "$(cat output)" second
