# Who has no key of the container's is told nothing, but that keys are what counts.
ssh-keygen -q -t ed25519 -N '' -f wrong
for options in "-i wrong -F none" "-F none -o PreferredAuthentications=password,keyboard-interactive,none"; do
  code=0
  : >none
  # shellcheck disable=SC2086 # options are words
  ssh $options -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=known \
    -p "$PORT" "$LOGIN@127.0.0.1" true 2>err || code=$?
  is "$code" 255
  has "$(cat err)" 'Permission denied (publickey)'
done
