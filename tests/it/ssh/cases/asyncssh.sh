# asyncssh: a hundred channels at once, signals both ways, SFTP.
"$PYTHON" "$PROGRAMS/use_asyncssh.py"
