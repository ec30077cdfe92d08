# A folder over there, mounted here: written, read, listed, renamed and removed through it.
# needs: sftp
command -v sshfs >/dev/null || skip "sshfs is not installed (Debian package: sshfs)"
[ -w /dev/fuse ] || skip "/dev/fuse is not there, or not for this user"
mkdir here
gw "mkdir -p $THERE/mounted"
sshfs -F "$CONFIG" -o reconnect "gw:$THERE/mounted" here 2>told || {
  # Containers often have the device and not the right to mount.
  grep -q 'Operation not permitted' told && skip "this machine lets nobody mount: $(cat told)"
  fail "$(cat told)"
}
unmount() { fusermount3 -u here 2>/dev/null || fusermount -u here; }
trap 'unmount; quit' EXIT
random 2 up
cp up here/file
cmp up here/file
is "$(gw "sha256sum <$THERE/mounted/file")" "$(sha256sum <up)"
gw "echo from over there >$THERE/mounted/other"
mkdir here/folder
mv here/file here/folder/renamed
is "$(ls here here/folder)" $'here:\nfolder\nother\n\nhere/folder:\nrenamed'
is "$(cat here/other)" "from over there"
dd if=here/folder/renamed bs=4096 skip=100 count=3 status=none | cmp - <(dd if=up bs=4096 skip=100 count=3 status=none)
rm -r here/folder here/other
is "$(gw "ls -A $THERE/mounted")" ""
