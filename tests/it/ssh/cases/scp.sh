# scp as it is today, over SFTP: files, folders, modes.
# needs: sftp
random 8 up
chmod 640 up
scp -q -F "$CONFIG" -p up "gw:$THERE/scp.bin"
scp -q -F "$CONFIG" -p "gw:$THERE/scp.bin" down
cmp up down
is "$(stat -c %a down)" 640
mkdir -p tree/branch
cp up tree/branch/leaf
scp -q -F "$CONFIG" -r tree "gw:$THERE/scp-tree"
scp -q -F "$CONFIG" -r "gw:$THERE/scp-tree" back
cmp up back/branch/leaf
