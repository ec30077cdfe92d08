# scp as it was, over its own protocol.
# needs: tools
random 8 up
scp -q -O -F "$CONFIG" -p up "gw:$THERE/scp-o.bin"
scp -q -O -F "$CONFIG" -p "gw:$THERE/scp-o.bin" down
cmp up down
mkdir -p tree/branch
cp up tree/branch/leaf
scp -q -O -F "$CONFIG" -r tree "gw:$THERE/scp-o-tree"
scp -q -O -F "$CONFIG" -r "gw:$THERE/scp-o-tree" back
cmp up back/branch/leaf
code=0
scp -q -O -F "$CONFIG" "gw:$THERE/no-such-file" down 2>err || code=$?
is "$code" 1
has "$(cat err)" 'No such file'
