#!/bin/sh
while load=$(uptime) && printf 'event: load\ndata: %s\n\n' "${load##*: }"; do
    sleep 1
done
