# asyncssh: a hundred channels at once, signals both ways, SFTP.
# needs: sftp
"$PYTHON" "$PROGRAMS/use_asyncssh.py"
