# New keys all the time, under load in both directions: so often, and not for so long.
random 3 up
for options in "" "-o Ciphers=aes128-ctr -o MACs=hmac-sha2-256-etm@openssh.com"; do
  # shellcheck disable=SC2086 # several words
  gw -v -o RekeyLimit=1M $options -- cat <up 2>log | cmp - up
  exchanges=$(grep -c 'SSH2_MSG_NEWKEYS received' log)
  [ "$exchanges" -ge 3 ] || fail "keys were exchanged $exchanges times"
done
