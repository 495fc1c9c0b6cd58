#!/bin/sh
printf 'Content-Type: text/plain\n\n'
echo "a report on $PATH_INFO for $REQUEST_METHOD"
