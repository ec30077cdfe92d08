# -L: to a port over there, both directions ending on their own.
# needs: sshd
serve_there
master -L "$PWD/l.sock:127.0.0.1:$port"
is "$(curl -sS --unix-socket l.sock http://there/)" hello
random 4 up
python3 "$PROGRAMS/echo.py" l.sock <up >back
printf '!' >>up
cmp up back
