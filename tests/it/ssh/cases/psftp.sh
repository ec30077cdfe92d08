# PuTTY's psftp.
# needs: sftp
puttygen "$IDENTITY" -O private -o key.ppk
random 4 up
printf 'put up %s/psftp.bin\nget %s/psftp.bin down\n' "$THERE" "$THERE" >batch
psftp -batch -hostkey "$HOST_KEY" -i key.ppk -P "$PORT" -b batch "$LOGIN@127.0.0.1" >log
cmp up down
