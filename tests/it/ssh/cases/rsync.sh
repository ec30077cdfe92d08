# rsync there and back, and once more with hardly anything to do.
# needs: tools
mkdir -p tree/a/b
random 6 tree/a/b/large
for number in $(seq 1 200); do echo "$number" >"tree/a/$number"; done
rsync -a -e "ssh -F $CONFIG" tree/ "gw:$THERE/rsync/"
echo changed >tree/a/7
rsync -a --delete --stats -e "ssh -F $CONFIG" tree/ "gw:$THERE/rsync/" >stats
has "$(cat stats)" 'Number of regular files transferred: 1'
rsync -a -z -e "ssh -F $CONFIG" "gw:$THERE/rsync/" back/
diff -r tree back
