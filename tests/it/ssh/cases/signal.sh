# Signals, sent and died of. OpenSSH's own server delivers none to root.
# needs: edd
LOGIN=$USER_LOGIN "$PYTHON" "$PROGRAMS/signal_asyncssh.py"
