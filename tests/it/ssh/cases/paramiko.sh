# paramiko: a terminal and its size, exit statuses, SFTP.
# needs: sftp
"$PYTHON" "$PROGRAMS/use_paramiko.py"
