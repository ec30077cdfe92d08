# -Y: a client over there reaches this side's display, and with this side's cookie instead of the one that it was given.
# needs: sshd
mkfifo seen
python3 -u "$PROGRAMS/display.py" >seen &
exec 3<seen
read -r display <&3
cookie=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
export DISPLAY=$display XAUTHORITY=$PWD/authority
xauth -q add "$display" MIT-MAGIC-COOKIE-1 "$cookie" 2>/dev/null
is "$(gw -Y -- "python3 -c '$(cat "$PROGRAMS/window.py")'")" seen
read -r shown <&3
is "$shown" "MIT-MAGIC-COOKIE-1 $cookie"
