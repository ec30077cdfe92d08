# sftp in a batch; its end is a success.
# needs: sftp
random 8 up
sftp -q -F "$CONFIG" -b - gw >log <<END
cd $THERE
mkdir sftp
put up sftp/one
rename sftp/one sftp/two
get sftp/two down
ls -l sftp
rm sftp/two
rmdir sftp
END
cmp up down
