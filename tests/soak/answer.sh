# As answer.c does, without random numbers. In a resident nothing may fork but where it is told to.
case $1 in now*) n=${1#now} && echo "$1" && exit $((n % 64)) ;; esac
read -r nonce order
[ "$PWD" = / ] && served=there
echo "$nonce $1 $NONCE ${served-0}"
served=1
cd /
umask 055
trap '' USR1
exec 9>&1
case $order in
    copy) while IFS= read -r line; do echo "$line"; done ;;
    flood) while :; do echo "$nonce"; done ;;
    wait) : <"$FIFO" ;;
    deaf) trap '' TERM && : <"$FIFO" ;;
    family)
        : <"$FIFO" &
        : <"$FIFO"
        ;;
    close)
        exec 1>&- 9>&-
        sleep 0.02
        ;;
    stay) { sleep 0.02 && echo "child $nonce"; } & ;;
    crash) kill -SEGV $$ ;;
    leave) echo "child $(echo "$nonce")" ;;
esac
exit $((nonce % 64))
