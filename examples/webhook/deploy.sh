#!/bin/sh
# What a push starts: here, `git -C /srv/site fetch && git -C /srv/site checkout "$1"` might stand.
echo "deployed $1"
