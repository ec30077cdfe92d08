# paramiko: a terminal and its size, exit statuses, SFTP.
"$PYTHON" "$PROGRAMS/use_paramiko.py"
