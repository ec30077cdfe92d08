# asyncssh: a hundred forwarded connections at once, in each direction.
# needs: sshd
serve_there
"$PYTHON" "$PROGRAMS/forward_asyncssh.py" "$port"
