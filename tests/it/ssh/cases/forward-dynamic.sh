# -D: SOCKS, names resolved over there.
# needs: sshd
serve_there
socks=$(free_port)
master -D "127.0.0.1:$socks"
is "$(curl -sS --socks5-hostname "127.0.0.1:$socks" "http://localhost:$port/")" hello
is "$(curl -sS --socks5 "127.0.0.1:$socks" "http://127.0.0.1:$port/")" hello
