# Locale variables come along, others do not.
is "$(gw -o SetEnv=LC_EDD=grün -- 'echo $LC_EDD')" grün
is "$(gw -o SetEnv=LD_PRELOAD=evil -- 'echo "<$LD_PRELOAD>"')" '<>'
