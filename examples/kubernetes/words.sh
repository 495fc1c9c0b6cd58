#!/bin/sh
# How many words were sent.
exec wc -w
