# curl's SFTP, which is libssh2.
# needs: sftp
random 4 up
there() { curl -sS --insecure --key "$IDENTITY" --pubkey "$IDENTITY.pub" -u "$LOGIN:" "$@"; }
there -T up "sftp://127.0.0.1:$PORT$THERE/curl.bin"
there -o down "sftp://127.0.0.1:$PORT$THERE/curl.bin"
cmp up down
