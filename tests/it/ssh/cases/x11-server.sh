# -Y: a real client over there, at a real X server on this side, which lets in nobody without its cookie.
# needs: sshd tools
command -v Xvfb >/dev/null || skip "Xvfb is not installed (Debian package: xvfb)"
gw 'command -v xprop' >/dev/null || skip "xprop is not there (Debian package: x11-utils)"
cookie=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
export XAUTHORITY=$PWD/authority
xauth -q add :0 MIT-MAGIC-COOKIE-1 "$cookie" 2>/dev/null
mkfifo number
Xvfb -displayfd 3 -screen 0 320x200x24 -nolisten tcp -noreset -auth "$XAUTHORITY" 3>number 2>server.log &
read -r display <number
export DISPLAY=:$display
xauth -q add "$DISPLAY" MIT-MAGIC-COOKIE-1 "$cookie" 2>/dev/null
gw -Y -- 'xprop -root -f EDD_TEST 8s -set EDD_TEST "seen from $DISPLAY"'
has "$(xprop -root EDD_TEST)" 'seen from localhost:1'
# Without a forward there is no display.
! gw -- 'DISPLAY=localhost:10.0 xprop -root' >/dev/null 2>&1 || fail "a display without a forward"
