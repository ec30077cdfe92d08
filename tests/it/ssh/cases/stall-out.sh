# The mirror image: this side reads nothing of an endless output.
master
mkfifo unread
gw -S ctl -- 'cat /dev/zero' >unread &
exec 3<unread
head -c 1 <&3 >/dev/null
for _ in 1 2 3 4 5; do
  is "$(gw -S ctl -- 'echo quick; head -c 500000 /dev/zero | wc -c')" $'quick\n500000'
done
random 2 up
gw -S ctl -- cat <up | cmp - up
# It goes on where it stood.
is "$(head -c 5000000 <&3 | wc -c)" 5000000
